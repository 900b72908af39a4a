// The worker as it is, on a thread that obeys a test.
import { runUnderSeam } from "./seam.ts";

await runUnderSeam("outbox-poller", () => import("../../workers/outbox-poller.ts"));
