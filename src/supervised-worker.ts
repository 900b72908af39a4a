// One worker thread, kept alive:
//
//   starting --ready--> running --stop--> ended
//      |                   |
//      +-- failed, exit, --+--> pausing --> starting
//          or silence      |
//                          +--> ended (too often: given up)
import type { MainToWorker, WorkerName, WorkerState, WorkerToMain } from "../workers/protocol.ts";
import type { Config } from "./config.ts";
import type { Log } from "./platform/log.ts";

/** How a worker stands: `degraded` when a system that it needs is away, `down` when it does not run. */
export type WorkerHealth = "up" | "degraded" | "down";

/** What a supervisor waits for, and how often it tries again; milliseconds, unless named otherwise. */
export interface SuperviseLimits {
  /** Without a heartbeat for so long, a worker is ended. */
  silenceMaxMs: number;
  /** From a worker's start to `ready`. */
  startMaxMs: number;
  /** The pause before a restart is doubled with each one of the last minute, between these. */
  restartPauseMinMs: number;
  restartPauseMaxMs: number;
  /** One more, and the worker is given up. */
  restartsPerMinuteMax: number;
  metricsDeadlineMs: number;
}

export interface SupervisedOptions {
  config: Config;
  instanceId: string;
  log: Log;
  onGiveUp(name: WorkerName): void;
  limits: SuperviseLimits;
  programOf(name: WorkerName): string | URL;
}

export interface SupervisedWorker {
  /** Resolves when it was ready once, or has ended. */
  started: Promise<void>;
  /** Dropped unless it runs: a worker that starts looks at everything anyway. */
  send(message: MainToWorker): void;
  health(): WorkerHealth;
  restarts(): number;
  /** Nothing when it does not answer in time. */
  collectMetrics(): Promise<unknown[] | undefined>;
  stop(deadlineMs: number): Promise<void>;
}

/** Starts a worker and keeps it alive until `stop`, or until it is given up. */
export function superviseWorker(name: WorkerName, options: SupervisedOptions): SupervisedWorker {
  const { log, limits } = options;
  const started = Promise.withResolvers<void>();
  const metrics = new Map<number, (metrics: unknown[]) => void>();
  let life: "starting" | "running" | "pausing" | "stopping" | "ended" = "starting";
  let thread: Worker;
  let threadEnded = Promise.withResolvers<void>();
  let reported: WorkerState = "up";
  let aliveUntilMs = 0;
  let checkedAtMs = performance.now();
  let restartedAtMs: number[] = [];
  let restartCount = 0;
  let metricsCount = 0;
  let pausing: Timer | undefined;

  function startThread() {
    life = "starting";
    reported = "up";
    aliveUntilMs = performance.now() + limits.startMaxMs;
    threadEnded = Promise.withResolvers();
    const opened = new Worker(options.programOf(name), { name });
    thread = opened;
    opened.addEventListener("message", (event: MessageEvent<WorkerToMain>) => {
      if (opened === thread) hear(event.data);
    });
    opened.addEventListener("error", (event) => {
      if (opened === thread) lose("crashed", event.message);
    });
    opened.addEventListener("close", () => {
      if (opened !== thread) return;
      threadEnded.resolve();
      lose("exited", "");
    });
    opened.postMessage({ kind: "start", instanceId: options.instanceId, config: options.config });
  }

  function hear(message: WorkerToMain) {
    switch (message.kind) {
      case "ready":
        if (life === "starting") life = "running";
        started.resolve();
        aliveUntilMs = performance.now() + limits.silenceMaxMs;
        return;
      case "heartbeat":
        aliveUntilMs = performance.now() + limits.silenceMaxMs;
        return;
      case "state":
        reported = message.state;
        log.info({ worker: name, state: message.state, away: message.detail }, "worker state");
        return;
      case "metrics":
        return metrics.get(message.id)?.(message.metrics);
      case "failed":
        return lose(message.code, message.message);
      case "stopped":
        return threadEnded.resolve();
      default:
        return message satisfies never;
    }
  }

  /** Ends the thread, whatever is left of it, and starts another one after a pause. */
  function lose(code: string, message: string) {
    if (life !== "starting" && life !== "running") return;
    thread.terminate();
    const now = performance.now();
    restartedAtMs = [...restartedAtMs.filter((at) => now - at < 60_000), now];
    if (restartedAtMs.length > limits.restartsPerMinuteMax) return giveUp(code, message);
    const doublings = restartedAtMs.length - 1;
    const pauseMs = Math.min(limits.restartPauseMinMs * 2 ** doublings, limits.restartPauseMaxMs);
    log.error({ worker: name, code, detail: message, pauseMs }, "worker lost, will be started again");
    life = "pausing";
    restartCount += 1;
    pausing = setTimeout(startThread, pauseMs);
  }

  function giveUp(code: string, message: string) {
    log.fatal({ worker: name, code, detail: message }, "worker failed too often");
    end();
    options.onGiveUp(name);
  }

  function end() {
    life = "ended";
    clearInterval(checking);
    started.resolve();
  }

  // A check that comes late means that this thread stood still, and heartbeats wait to be read: no one is silent.
  function check() {
    const now = performance.now();
    const isLate = now - checkedAtMs > limits.silenceMaxMs / 2;
    checkedAtMs = now;
    if (isLate) aliveUntilMs = Math.max(aliveUntilMs, now + limits.silenceMaxMs);
    if (now > aliveUntilMs) lose(life === "starting" ? "start_timed_out" : "silent", "");
  }

  const checking = setInterval(check, limits.silenceMaxMs / 6);
  startThread();

  return {
    started: started.promise,
    send(message) {
      if (life === "running") thread.postMessage(message);
    },
    health() {
      return life === "running" ? reported : "down";
    },
    restarts: () => restartCount,
    async collectMetrics() {
      if (life !== "running") return undefined;
      metricsCount += 1;
      const id = metricsCount;
      const answer = Promise.withResolvers<unknown[] | undefined>();
      metrics.set(id, answer.resolve);
      const timer = setTimeout(() => answer.resolve(undefined), limits.metricsDeadlineMs);
      thread.postMessage({ kind: "collect_metrics", id });
      return answer.promise.finally(() => {
        clearTimeout(timer);
        metrics.delete(id);
      });
    },
    async stop(deadlineMs) {
      const isAlive = life === "starting" || life === "running";
      clearTimeout(pausing);
      life = "stopping";
      if (isAlive) {
        thread.postMessage({ kind: "stop", deadlineMs });
        const timer = setTimeout(threadEnded.resolve, deadlineMs);
        await threadEnded.promise;
        clearTimeout(timer);
        thread.terminate();
      }
      end();
    },
  };
}
