// The channel between the main thread and a worker, and the life that all workers share: start, ready, heartbeats
// while the loops turn, stop by a deadline. Guaranteed: a worker that cannot go on says `failed` and exits;
// one whose loops hang falls silent, and whoever started it ends it.
import { parentPort } from "node:worker_threads";
import { register } from "prom-client";
import type { MainToWorker, WorkerName, WorkerState, WorkerToMain } from "../../workers/protocol.ts";
import { OperatingError } from "../model/errors.ts";
import { type Log, openLog } from "./log.ts";
import { openWatchdogs, type Watchdogs } from "./watchdog.ts";

/** One end of a channel: what it hears, what it says. */
export interface Port<In, Out> {
  /** One listener, for good. */
  listen(onMessage: (message: In) => void): void;
  send(message: Out): void;
}

/** What a worker's program is given. */
export interface WorkerContext {
  instanceId: string;
  config: Extract<MainToWorker, { kind: "start" }>["config"];
  log: Log;
  /** Each loop has one; heartbeats stop when one of them barks. */
  watchdogs: Watchdogs;
  /** How the worker sees an outside system; it is `degraded` as long as any is. */
  report(system: "postgres" | "kafka" | "redis", state: WorkerState): void;
  /** It cannot go on. */
  fail(error: unknown): void;
}

/** A worker's program while it runs. */
export interface RunningWorker {
  /** These shards, or all, may have new rows. */
  wake?(shards: readonly number[] | "all"): void;
  /** Ends what is in flight and gives everything back, in less than `deadlineMs`. */
  stop(deadlineMs: number): Promise<void>;
}

// Often, so that only a thread that stood still for most of what silence may last counts as silent.
const heartbeatIntervalMs = 250;

/** Inside a worker: its end of the channel to the thread that started it. */
function openWorkerPort<In, Out>(): Port<In, Out> {
  const port = parentPort;
  if (port === null) throw new Error("this program runs as a worker thread only");
  return {
    listen: (onMessage) => void port.on("message", onMessage),
    send: (message) => port.postMessage(message),
  };
}

/**
 * Runs a worker's program: `start` is called once, on the first message, and returns when its loops run; it must
 * not wait for an outside system, which may be away.
 */
export function runWorker(name: WorkerName, start: (context: WorkerContext) => Promise<RunningWorker>): void {
  const port = openWorkerPort<MainToWorker, WorkerToMain>();
  let running: RunningWorker | undefined;

  const fail = (error: unknown) => {
    const code = error instanceof OperatingError ? error.code : "worker_crashed";
    port.send({ kind: "failed", code, message: error instanceof Error ? error.message : String(error) });
    process.exit(1);
  };
  process.on("unhandledRejection", fail);
  process.on("uncaughtException", fail);

  async function begin({ instanceId, config }: Extract<MainToWorker, { kind: "start" }>) {
    const watchdogs = openWatchdogs();
    const log = openLog(name, config.LOG_LEVEL);
    const report = openReport((state, detail) => port.send({ kind: "state", state, detail }));
    running = await start({ instanceId, config, log, watchdogs, report, fail });
    port.send({ kind: "ready" });
    setInterval(() => {
      if (watchdogs.areQuiet()) port.send({ kind: "heartbeat" });
    }, heartbeatIntervalMs);
  }

  async function end(deadlineMs: number) {
    await running?.stop(deadlineMs);
    port.send({ kind: "stopped" });
    process.exit(0);
  }

  port.listen((message) => {
    switch (message.kind) {
      case "start":
        return void begin(message).catch(fail);
      case "wake":
        return running?.wake?.(message.shards);
      case "wake_all":
        return running?.wake?.("all");
      case "collect_metrics":
        return void register
          .getMetricsAsJSON()
          .then((metrics) => port.send({ kind: "metrics", id: message.id, metrics }))
          .catch(fail);
      case "stop":
        return void end(message.deadlineMs).catch(fail);
      default:
        return message satisfies never;
    }
  });
}

/** Turns what is known of each system into one state, and tells when that changes. */
function openReport(tell: (state: WorkerState, detail: string) => void): WorkerContext["report"] {
  const away = new Set<string>();
  let told: string | undefined;
  return (system, state) => {
    if (state === "degraded") away.add(system);
    else away.delete(system);
    const detail = [...away].toSorted().join(", ");
    if (detail === told) return;
    told = detail;
    tell(away.size > 0 ? "degraded" : "up", detail);
  };
}
