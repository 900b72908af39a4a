// One worker, kept alive over any number of threads:
//
//   starting --ready--> running
//       |                  |
//       +------lost--------+--> pausing --> starting
//       |                  |
//       +--stop, or lost too often--> over
import type { WorkerName, WorkerState } from "../workers/protocol.ts";
import type { Config } from "./config.ts";
import type { Log } from "./platform/log.ts";
import { type SilenceLimits, startThread, type WorkerThread } from "./platform/worker-thread.ts";

/** How a worker stands: `degraded` when a system that it needs is away, `down` when it does not run. */
export type WorkerHealth = "up" | "degraded" | "down";

/** What a supervisor waits for, and how often it tries again; milliseconds, unless named otherwise. */
export interface SuperviseLimits extends SilenceLimits {
  /** The pause before a restart is doubled with each one of the last `restartWindowMs`, between these. */
  restartPauseMinMs: number;
  restartPauseMaxMs: number;
  restartWindowMs: number;
  /** One more within the window, and the worker is given up. */
  restartsMax: number;
  metricsDeadlineMs: number;
}

/** What one worker is started with. */
export interface SupervisedOptions {
  config: Config;
  instanceId: string;
  log: Log;
  onGiveUp(name: WorkerName): void;
  limits: SuperviseLimits;
  programOf(name: WorkerName): string | URL;
}

/** A worker over all its threads. */
export interface SupervisedWorker {
  /** Resolves when it was ready once, or is over. */
  started: Promise<void>;
  send: WorkerThread["send"];
  health(): WorkerHealth;
  /** The outside systems that it misses now. */
  away(): readonly string[];
  restarts(): number;
  /** Nothing when it does not answer in time. */
  collectMetrics(): Promise<unknown[] | undefined>;
  stop(deadlineMs: number): Promise<void>;
}

/** Starts a worker and keeps it alive until `stop`, or until it is given up. */
export function superviseWorker(name: WorkerName, options: SupervisedOptions): SupervisedWorker {
  const { config, instanceId, limits } = options;
  const log = options.log.child({ worker: name });
  const started = Promise.withResolvers<void>();
  let isReady = false;
  let reported: WorkerState = "up";
  let away: readonly string[] = [];
  let lostAtMs: number[] = [];
  let restartCount = 0;
  let pausing: Timer | undefined;
  let thread = start();

  function start(): WorkerThread {
    reported = "up";
    return startThread(options.programOf(name), { kind: "start", instanceId, config }, limits, {
      onReady() {
        isReady = true;
        started.resolve();
      },
      onState(state, detail) {
        reported = state;
        away = detail === "" ? [] : detail.split(", ");
        log.info({ state, away: detail }, "worker state");
      },
      onLost,
    });
  }

  function onLost(code: string, detail: string) {
    isReady = false;
    const now = performance.now();
    lostAtMs = [...lostAtMs.filter((at) => now - at < limits.restartWindowMs), now];
    if (lostAtMs.length > limits.restartsMax) {
      log.fatal({ code, detail }, "worker failed too often");
      started.resolve();
      return options.onGiveUp(name);
    }
    const pauseMs = Math.min(limits.restartPauseMinMs * 2 ** (lostAtMs.length - 1), limits.restartPauseMaxMs);
    log.error({ code, detail, pauseMs }, "worker lost, starts again");
    pausing = setTimeout(() => {
      restartCount += 1;
      thread = start();
    }, pauseMs);
  }

  return {
    started: started.promise,
    send: (message) => thread.send(message),
    health: () => (isReady ? reported : "down"),
    away: () => away,
    restarts: () => restartCount,
    collectMetrics: () => thread.collectMetrics(limits.metricsDeadlineMs),
    async stop(deadlineMs) {
      isReady = false;
      clearTimeout(pausing);
      await thread.stop(deadlineMs);
      started.resolve();
    },
  };
}
