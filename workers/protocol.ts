// Every message between the main thread and its workers: closed unions of plain data (structured clone).
// Order of a worker's life: start -> ready -> (heartbeat ...) -> stop -> stopped.
import type { Config } from "../src/config.ts";

/** The workers, by the name of their file. */
export const workerNames = ["outbox-poller", "message-router", "redis-backfill"] as const;
/** One of them. */
export type WorkerName = (typeof workerNames)[number];

/** How a worker sees the outside systems it needs. */
export type WorkerState = "up" | "degraded";

/** What the main thread says to a worker. */
export type MainToWorker =
  /** First message, once. `instanceId` is the same in all workers of a process. */
  | { kind: "start"; instanceId: string; config: Config }
  /** To the outbox poller, straight after a commit: these shards have new rows. */
  | { kind: "wake"; shards: number[] }
  /** To the outbox poller, after a change of the outbox that is not of one shard: look at all of them. */
  | { kind: "wake_all" }
  /** Asks for this thread's metrics; answered by `metrics` with the same id. */
  | { kind: "collect_metrics"; id: number }
  /** Finish what is in flight, give leases and partitions back, then answer `stopped`. */
  | { kind: "stop"; deadlineMs: number };

/** What a worker says to the main thread. */
export type WorkerToMain =
  | { kind: "ready" }
  /** Four times a second while the worker's event loop turns and its loops make progress or rightly wait. */
  | { kind: "heartbeat" }
  /** Its outside systems came or went. */
  | { kind: "state"; state: WorkerState; detail: string }
  /** prom-client's getMetricsAsJSON() of this thread. */
  | { kind: "metrics"; id: number; metrics: unknown[] }
  /** It cannot go on; the supervisor restarts it. `code` is an OperatingError's. */
  | { kind: "failed"; code: string; message: string }
  | { kind: "stopped" };
