// Postgres, Redis and Kafka brokers as things that faults are done to: all of them are stopped, started and paused alike.
import { readdirSync, readFileSync } from "node:fs";
import { processStatus } from "../../deploy/local/pid.ts";
import { sendSignal } from "../../deploy/local/process.ts";
import { OperatingError } from "../../src/model/errors.ts";

/** A server that comes back with the same data (as far as it keeps any) and the same port. */
export interface StagedServer {
  readonly name: string;
  /** Stops it by a signal; in good order without one. Does nothing to one that is down. */
  stop(signal?: NodeJS.Signals): Promise<void>;
  /** Starts it unless it runs, whoever ended it. */
  start(): Promise<void>;
  /** SIGSTOP to all its processes, and SIGCONT. */
  pause(): void;
  resume(): void;
  isRunning(): boolean;
  /** Of the process that was started last. */
  pid(): number;
}

/** How one is started; what that answers is asked only while it runs. */
export type StartServer = () => Promise<{ pid: number; stop(signal?: NodeJS.Signals): Promise<void> }>;

const startTriesMax = 5;
const retryPauseMs = 500;

/** A server that runs already, or not yet. */
export function stagedServer(
  name: string,
  startOnce: StartServer,
  first?: Awaited<ReturnType<StartServer>>,
): StagedServer {
  let running = first;
  let mark = first && processStatus(first.pid)?.started;
  let turn: Promise<unknown> = Promise.resolve();
  /** One after the other: a start that is under way is not overtaken by a stop. */
  const inTurn = (work: () => Promise<void>) => {
    const done = turn.then(work);
    turn = done.catch(() => undefined);
    return done;
  };
  const isRunning = () =>
    running !== undefined && mark !== undefined && processStatus(running.pid)?.started === mark;

  async function startNow() {
    for (let tries = 1; !isRunning(); tries += 1) {
      try {
        running = await startOnce();
        mark = processStatus(running.pid)?.started;
        return;
      } catch (error) {
        // For example: what a killed one has left is not gone yet.
        if (!(error instanceof OperatingError) || tries === startTriesMax) throw error;
        await Bun.sleep(retryPauseMs);
      }
    }
  }

  function signalAll(signal: NodeJS.Signals) {
    if (!running || !isRunning()) return;
    // The parent first, so that it has no more children meanwhile.
    sendSignal(running.pid, signal);
    for (const pid of processesUnder(running.pid)) sendSignal(pid, signal);
  }

  return {
    name,
    isRunning,
    pid: () => running?.pid ?? 0,
    stop: (signal) =>
      inTurn(async () => {
        if (signal !== "SIGKILL") signalAll("SIGCONT");
        if (isRunning()) await running?.stop(signal);
      }),
    start: () => inTurn(startNow),
    pause: () => signalAll("SIGSTOP"),
    resume: () => signalAll("SIGCONT"),
  };
}

/** The processes that descend from one. */
function processesUnder(pid: number): number[] {
  const children = allParents().flatMap(([child, parent]) => (parent === pid ? [child] : []));
  return [...children, ...children.flatMap(processesUnder)];
}

/** Each process and its parent. */
function allParents(): [pid: number, parent: number][] {
  if (process.platform === "linux") {
    return readdirSync("/proc")
      .filter((entry) => /^\d+$/.test(entry))
      .map((entry) => [Number(entry), parentOf(entry)]);
  }
  const lines = Bun.spawnSync(["ps", "-A", "-o", "pid=,ppid="]).stdout.toString().trim().split("\n");
  return lines.map((line) => {
    const [pid = 0, parent = 0] = line.trim().split(/\s+/).map(Number);
    return [pid, parent];
  });
}

function parentOf(pid: string): number {
  try {
    return Number(readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1)?.split(" ")[1]);
  } catch {
    return 0; // It has ended since.
  }
}
