// The worker's own program, where a test can harm it.
import "../../workers/outbox-poller.ts";
import { awaitHarm } from "./harm.ts";

awaitHarm("outbox-poller");
