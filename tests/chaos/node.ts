// One instance as the stage sees it: a process that is started, killed, paused, drained and told things. Whoever runs
// servers starts one again that ended by itself, and so does this; that it ended is kept as a finding.
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { type ServerProcess, sendSignal, startServerProcess } from "../../deploy/local/process.ts";
import type { Command } from "./seam.ts";

/** One instance of the server, which keeps its address over restarts. */
export interface Instance {
  readonly name: string;
  readonly url: string;
  /** 0 while it is down. */
  readonly pid: number;
  /** Starts it unless it runs; resolves when it listens. While it cannot start, it is tried again and again. */
  start(): Promise<void>;
  /** SIGKILL; resolves when it is gone. It stays down. */
  kill(): Promise<void>;
  /** SIGSTOP, and SIGCONT. */
  pause(): void;
  resume(): void;
  /** SIGTERM; it stays down. `code` is null when there was none to drain. */
  drain(): Promise<{ code: number | null; durationMs: number }>;
  /** Resolves when the command has been passed on to the threads that it is for; rejects when nobody listens. */
  tell(command: Command): Promise<void>;
}

/** An instance that had started, and ended without being asked to. */
export interface UnexpectedExit {
  instance: string;
  code: number;
  /** The end of its log. */
  output: string;
}

/** What an instance is made of. */
export interface InstanceOptions {
  name: string;
  /** Has the log of each of its processes, `process-{n}.log`. */
  directory: string;
  port: number;
  controlPort: number;
  variables: Record<string, string>;
  onUnexpectedExit(exit: UnexpectedExit): void;
}

const program = join(import.meta.dir, "instance.ts");
const startMsMax = 60_000;
const drainMsMax = 20_000;
const restartPauseMs = 500;
const probePauseMs = 50;

/** An instance that is down; its processes are ended by `drain` or `kill`. */
export function makeInstance(options: InstanceOptions): Instance {
  const { name, directory, port, controlPort } = options;
  const url = `http://127.0.0.1:${port}`;
  mkdirSync(directory, { recursive: true });
  let processes = 0;
  let current: ServerProcess | undefined;
  let isWanted = false;
  let starting: Promise<void> | undefined;

  async function start() {
    isWanted = true;
    await (starting ??= untilListening().finally(() => (starting = undefined)));
  }

  async function untilListening() {
    const endMs = performance.now() + startMsMax;
    while (isWanted) {
      const running = (current ??= await spawn());
      if (await listens(running)) return;
      if (performance.now() > endMs) throw new Error(`${name} does not listen: ${running.lastOutput()}`);
      await Bun.sleep(running.isRunning() ? probePauseMs : restartPauseMs);
    }
  }

  async function spawn(): Promise<ServerProcess> {
    processes += 1;
    const running = await startServerProcess({
      name: `process-${processes}`,
      command: [process.execPath, program],
      directory,
      stopSignal: "SIGTERM",
      env: {
        PATH: process.env["PATH"],
        ...options.variables,
        PORT: String(port),
        CHAOS_CONTROL_PORT: String(controlPort),
      },
    });
    void running.exited.then((code) => onExit(running, code));
    return running;
  }

  function onExit(running: ServerProcess, code: number) {
    if (current === running) current = undefined;
    if (!isWanted || starting !== undefined) return;
    options.onUnexpectedExit({ instance: name, code, output: running.lastOutput(30) });
    void start().catch(() => undefined);
  }

  async function listens(running: ServerProcess): Promise<boolean> {
    if (!running.isRunning()) return false;
    return await fetch(`${url}/healthz`, { signal: AbortSignal.timeout(1_000), keepalive: false }).then(
      (answer) => answer.ok,
      () => false,
    );
  }

  async function end(signal: NodeJS.Signals): Promise<number | null> {
    isWanted = false;
    // One that is being started may have no process yet.
    if (current === undefined) await starting?.catch(() => undefined);
    const running = current;
    if (running === undefined) return null;
    await running.stop(drainMsMax, signal);
    await starting?.catch(() => undefined);
    return await running.exited;
  }

  function signalTo(signal: NodeJS.Signals) {
    if (current?.isRunning()) sendSignal(current.pid, signal);
  }

  return {
    name,
    url,
    get pid() {
      return current?.isRunning() ? current.pid : 0;
    },
    start,
    async kill() {
      await end("SIGKILL");
    },
    pause: () => signalTo("SIGSTOP"),
    resume: () => signalTo("SIGCONT"),
    async drain() {
      signalTo("SIGCONT");
      const startedAtMs = performance.now();
      const code = await end("SIGTERM");
      return { code, durationMs: performance.now() - startedAtMs };
    },
    async tell(command) {
      const answer = await fetch(`http://127.0.0.1:${controlPort}`, {
        method: "POST",
        body: JSON.stringify(command),
        signal: AbortSignal.timeout(5_000),
        keepalive: false,
      });
      if (!answer.ok) throw new Error(`${name} answered ${answer.status} to ${command.kind}`);
    },
  };
}
