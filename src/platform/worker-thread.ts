// The main thread's end of the channel to one worker, from its start to its end. Guaranteed: `onLost` is called once
// when the worker fails, exits or falls silent, and by then nothing of it runs any more; a worker that was asked to
// stop is ended by its deadline.
import type { MainToWorker, WorkerState, WorkerToMain } from "../../workers/protocol.ts";

/** What a thread's owner learns. */
export interface ThreadHooks {
  onReady(): void;
  /** `detail` names the systems that are away. */
  onState(state: WorkerState, detail: string): void;
  onLost(code: string, detail: string): void;
}

/** How long a worker may be silent, in milliseconds: from its start to `ready`, and between heartbeats. */
export interface SilenceLimits {
  startMaxMs: number;
  silenceMaxMs: number;
}

/** A worker while its thread lives. */
export interface WorkerThread {
  /** Dropped unless it is ready: a worker that starts looks at everything anyway. */
  send(message: MainToWorker): void;
  /** Nothing when it does not answer within the deadline. */
  collectMetrics(deadlineMs: number): Promise<unknown[] | undefined>;
  stop(deadlineMs: number): Promise<void>;
}

/** Starts a worker's program and gives it its `start` message. */
export function startThread(
  program: string | URL,
  start: Extract<MainToWorker, { kind: "start" }>,
  limits: SilenceLimits,
  hooks: ThreadHooks,
): WorkerThread {
  const worker = new Worker(program);
  const ended = Promise.withResolvers<void>();
  const metrics = openQuestions<unknown[]>();
  const silence = watchSilence(limits, (code) => lose(code, ""));
  let life: "starting" | "ready" | "stopping" | "over" = "starting";

  function lose(code: string, detail: string) {
    if (life !== "starting" && life !== "ready") return;
    end();
    hooks.onLost(code, detail);
  }

  function end() {
    life = "over";
    silence.end();
    worker.terminate();
  }

  function hear(message: WorkerToMain) {
    switch (message.kind) {
      case "ready":
        if (life !== "starting") return;
        life = "ready";
        silence.heard();
        return hooks.onReady();
      case "heartbeat":
        return silence.heard();
      case "state":
        return hooks.onState(message.state, message.detail);
      case "metrics":
        return metrics.answer(message.id, message.metrics);
      case "failed":
        return lose(message.code, message.message);
      case "stopped":
        return ended.resolve();
      default:
        return message satisfies never;
    }
  }

  worker.addEventListener("message", (event: MessageEvent<WorkerToMain>) => hear(event.data));
  worker.addEventListener("error", (event) => lose("worker_crashed", event.message));
  worker.addEventListener("close", () => {
    ended.resolve();
    lose("worker_exited", "");
  });
  worker.postMessage(start);

  return {
    send(message) {
      if (life === "ready") worker.postMessage(message);
    },
    async collectMetrics(deadlineMs) {
      if (life !== "ready") return undefined;
      const { id, answer } = metrics.ask(deadlineMs);
      worker.postMessage({ kind: "collect_metrics", id });
      return answer;
    },
    async stop(deadlineMs) {
      if (life === "over") return;
      life = "stopping";
      worker.postMessage({ kind: "stop", deadlineMs });
      const timer = setTimeout(ended.resolve, deadlineMs);
      await ended.promise;
      clearTimeout(timer);
      end();
    },
  };
}

/** Calls `onSilent` once nothing was heard for too long. */
function watchSilence(limits: SilenceLimits, onSilent: (code: string) => void) {
  let checkedAtMs = performance.now();
  let aliveUntilMs = checkedAtMs + limits.startMaxMs;
  let code = "worker_start_timed_out";

  // A check that comes late means that this thread stood still, and heartbeats wait to be read: no one is silent.
  const timer = setInterval(() => {
    const now = performance.now();
    const isLate = now - checkedAtMs > limits.silenceMaxMs / 2;
    checkedAtMs = now;
    if (isLate) aliveUntilMs = Math.max(aliveUntilMs, now + limits.silenceMaxMs);
    if (now > aliveUntilMs) onSilent(code);
  }, limits.silenceMaxMs / 6);

  return {
    heard() {
      code = "worker_silent";
      aliveUntilMs = performance.now() + limits.silenceMaxMs;
    },
    end: () => clearInterval(timer),
  };
}

/** Numbered questions that are answered by a deadline, or with nothing. */
function openQuestions<Answer>() {
  const open = new Map<number, (answer: Answer) => void>();
  let count = 0;
  return {
    ask(deadlineMs: number) {
      const id = (count += 1);
      const { promise, resolve } = Promise.withResolvers<Answer | undefined>();
      const timer = setTimeout(() => resolve(undefined), deadlineMs);
      open.set(id, resolve);
      const answer = promise.finally(() => {
        clearTimeout(timer);
        open.delete(id);
      });
      return { id, answer };
    },
    answer: (id: number, answer: Answer) => open.get(id)?.(answer),
  };
}
