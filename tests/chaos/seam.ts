// What the threads of an instance under test listen to, besides what they do: a clock that jumps, a worker's crash
// and its endless loop. The main thread passes commands on to its workers.
import type { WorkerName } from "../../workers/protocol.ts";
import { type Defect, installDefect } from "./defect.ts";

/** What an instance can be told. */
export type Command =
  /** An error that nobody catches, in a worker. */
  | { kind: "crash_worker"; worker: WorkerName }
  /** A worker that does nothing else any more. */
  | { kind: "loop_worker"; worker: WorkerName }
  /** From now on, and in workers that start later, the time of day is by so much another one; 0 ends that. */
  | { kind: "jump_clock"; byMs: number };

/** Variables through which an instance's threads are set up. A worker gets the main thread's as they are at its start. */
export const defectVariable = "CHAOS_DEFECT";
const clockVariable = "CHAOS_CLOCK_BY_MS";

const channelName = "chaos commands";
let clockByMs = 0;

/** Prepares this thread; call it before anything of `src/` is imported. */
export function installSeam(): void {
  const defect = process.env[defectVariable];
  if (defect) installDefect(JSON.parse(defect) as Defect);
  installClock();
}

/** In the main thread: carries a command out, here and in the workers. */
export function openCommander(): (command: Command) => void {
  const workers = new BroadcastChannel(channelName);
  return (command) => {
    if (command.kind === "jump_clock") {
      setClock(command.byMs);
      process.env[clockVariable] = String(command.byMs);
    }
    workers.postMessage(command);
  };
}

/** A worker's program: prepares its thread, and then runs the real one, which `load` imports. */
export async function runUnderSeam(worker: WorkerName, load: () => Promise<unknown>): Promise<void> {
  // The real program listens only once it is loaded.
  const early: unknown[] = [];
  const keep = (event: Event) => void early.push((event as MessageEvent).data);
  const thread = globalThis as unknown as EventTarget;
  thread.addEventListener("message", keep);
  installSeam();
  setClock(Number(process.env[clockVariable] ?? 0));
  const commands = new BroadcastChannel(channelName);
  commands.addEventListener("message", (event) => obey((event as MessageEvent<Command>).data, worker));
  await load();
  thread.removeEventListener("message", keep);
  for (const data of early) thread.dispatchEvent(new MessageEvent("message", { data }));
}

function obey(command: Command, worker: WorkerName): void {
  switch (command.kind) {
    case "jump_clock":
      return setClock(command.byMs);
    case "crash_worker":
      if (command.worker === worker) setTimeout(() => crash());
      return;
    case "loop_worker":
      if (command.worker === worker) for (;;);
      return;
    default:
      return command satisfies never;
  }
}

function crash(): never {
  throw new Error("crashed on purpose");
}

function setClock(byMs: number): void {
  clockByMs = byMs;
}

/** `Date` tells the time of day by `clockByMs` off. Timers and performance.now() go on as they were. */
function installClock(): void {
  const RealDate = Date;
  const realNow = RealDate.now;
  RealDate.now = () => realNow() + clockByMs;
  globalThis.Date = new Proxy(RealDate, {
    construct: (target, args, newTarget) =>
      Reflect.construct(target, args.length === 0 ? [RealDate.now()] : args, newTarget) as Date,
  });
}
