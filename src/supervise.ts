// Starts the workers of a node's roles and keeps them alive. A worker that fails, exits or falls silent is ended and
// started again after a pause; one that keeps failing is given up, which the process must not survive.
import type { WorkerName } from "../workers/protocol.ts";
import type { Config, Role } from "./config.ts";
import type { Log } from "./platform/log.ts";
import { workerUrl } from "./platform/worker-url.ts";
import {
  type SupervisedWorker,
  type SuperviseLimits,
  superviseWorker,
  type WorkerHealth,
} from "./supervised-worker.ts";

/** Which workers are started, and who is told of their end. */
export interface SuperviseOptions {
  config: Config;
  /** A UUID, new for each process: the outbox poller holds its shards by it. */
  instanceId: string;
  log: Log;
  /** Called once for a worker that failed too often; it is not started again. */
  onGiveUp(name: WorkerName): void;
  limits?: SuperviseLimits;
  /** Where a worker's program is. */
  programOf?: (name: WorkerName) => string | URL;
}

/** The workers of one process. */
export interface Workers {
  /** Tells the outbox poller, straight after a commit, which shards have new rows. */
  wake(shards: Iterable<number>): void;
  /** Of each worker that this process runs. */
  states(): Partial<Record<WorkerName, WorkerHealth>>;
  /** The outside systems that any of them misses now. */
  away(): ReadonlySet<string>;
  /** How often each was started again. */
  restarts(): Partial<Record<WorkerName, number>>;
  /** The metrics of each worker that answers in time, as prom-client's getMetricsAsJSON gives them. */
  collectMetrics(): Promise<unknown[][]>;
  /** Lets each finish what is in flight, and ends it after `deadlineMs` at the latest. */
  stop(deadlineMs: number): Promise<void>;
}

/**
 * Long enough for a machine that is busy, short enough for nobody to wait long: with the interval of the checks, a
 * worker that stands still is found within 3 s. The window holds eleven of those and the pauses between them.
 */
export const superviseLimits: SuperviseLimits = {
  silenceMaxMs: 2_500,
  startMaxMs: 10_000,
  restartPauseMinMs: 100,
  restartPauseMaxMs: 5_000,
  restartWindowMs: 120_000,
  restartsMax: 10,
  metricsDeadlineMs: 1_000,
};

const workerOfRole: Record<Exclude<Role, "api">, WorkerName> = {
  outbox: "outbox-poller",
  router: "message-router",
  backfill: "redis-backfill",
};

/** Starts the workers of `config.ROLES`; resolves when each was ready once, or was given up. */
export async function startWorkers(options: SuperviseOptions): Promise<Workers> {
  const names = options.config.ROLES.filter((role) => role !== "api").map((role) => workerOfRole[role]);
  const supervised = { limits: superviseLimits, programOf: workerUrl, ...options };
  const workers = new Map(names.map((name) => [name, superviseWorker(name, supervised)]));
  const all = [...workers.values()];
  const ofEach = <Value>(read: (worker: SupervisedWorker) => Value) =>
    Object.fromEntries([...workers].map(([name, worker]) => [name, read(worker)]));
  await Promise.all(all.map((worker) => worker.started));

  return {
    wake: (shards) => workers.get("outbox-poller")?.send({ kind: "wake", shards: [...shards] }),
    states: () => ofEach((worker) => worker.health()),
    away: () => new Set(all.flatMap((worker) => worker.away())),
    restarts: () => ofEach((worker) => worker.restarts()),
    async collectMetrics() {
      const answers = await Promise.all(all.map((worker) => worker.collectMetrics()));
      return answers.filter((metrics) => metrics !== undefined);
    },
    async stop(deadlineMs) {
      await Promise.all(all.map((worker) => worker.stop(deadlineMs)));
    },
  };
}
