// The worker as it is, on a thread that obeys a test.
import { runUnderSeam } from "./seam.ts";

await runUnderSeam("message-router", () => import("../../workers/message-router.ts"));
