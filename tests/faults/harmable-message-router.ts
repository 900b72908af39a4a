// The worker's own program, where a test can harm it.
import "../../workers/message-router.ts";
import { awaitHarm } from "./harm.ts";

awaitHarm("message-router");
