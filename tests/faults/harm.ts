// Worker threads that do harm to themselves when a test tells them to: their own programs, and one ear more.
import { parentPort } from "node:worker_threads";
import { workerUrl } from "../../src/platform/worker-url.ts";
import type { MainToWorker, WorkerName } from "../../workers/protocol.ts";

/** What a worker may be told: to stand still for ever, or to end without a word. */
export type Harm = "stand still" | "crash";

const channelName = "chat4all-faults";

/** Tells all harmed workers of one program that listen at this moment. */
export function doHarm(worker: WorkerName, harm: Harm): void {
  const channel = new BroadcastChannel(channelName);
  channel.postMessage({ worker, harm });
  channel.close();
}

/** In place of a worker's program, where it can be harmed. */
export function harmable(worker: WorkerName): string | URL {
  const isHarmable = worker === "outbox-poller" || worker === "message-router";
  return isHarmable ? new URL(`./harmable-${worker}.ts`, import.meta.url) : workerUrl(worker);
}

/** In a worker: listens for harm. */
export function awaitHarm(name: WorkerName): void {
  const channel = new BroadcastChannel(channelName);
  channel.onmessage = ({ data }: { data: { worker: WorkerName; harm: Harm } }) => {
    if (data.worker !== name) return;
    if (data.harm === "crash") process.exit(1);
    for (;;);
  };
  // The channel keeps nobody alive who has been asked to stop.
  parentPort?.on("message", ({ kind }: MainToWorker) => {
    if (kind === "stop") channel.close();
  });
}
