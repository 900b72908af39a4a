/**
 * Programs that are started here: servers that go on in the background, and tools that run to their end.
 *
 * Each runs in a session of its own, so that a Ctrl-C on the terminal reaches only the program that started
 * it, which then stops them in its own order. A server leaves its pid and the moment of its start on disk:
 * after a crash of the starter (kill -9, power) the next start stops what still runs, and starts it anew.
 * That is simpler than to adopt it, and also covers a server that hangs.
 */
import { closeSync, existsSync, openSync, readFileSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { OperatingError } from "../../src/model/errors.ts";
import { processStatus, recordedProcess, recordProcess } from "./pid.ts";

/** A server in the background. */
export interface ServerProcess {
  readonly pid: number;
  /** Resolves when the process has ended, for whatever reason. */
  readonly exited: Promise<number>;
  isRunning(): boolean;
  /** Asks with its `stopSignal` or another, kills after `deadlineMs`, and resolves when the process is gone. */
  stop(deadlineMs: number, signal?: NodeJS.Signals): Promise<void>;
  /** The end of what it wrote to stdout and stderr. */
  lastOutput(lines?: number): string;
}

/**
 * Starts a server whose pid file, output (`{name}.log`, that of the run before in `{name}.log.1`) and working
 * directory are in `directory`. One that an earlier run left behind is stopped first.
 */
export async function startServerProcess(options: {
  name: string;
  command: readonly string[];
  directory: string;
  /** What asks it to stop in good order. */
  stopSignal: NodeJS.Signals;
  env?: Record<string, string | undefined>;
}): Promise<ServerProcess> {
  const pidFile = join(options.directory, `${options.name}.pid`);
  const outputFile = join(options.directory, `${options.name}.log`);
  await stopLeftover(pidFile);
  if (existsSync(outputFile)) renameSync(outputFile, `${outputFile}.1`);
  const output = openSync(outputFile, "w", 0o600);
  const child = Bun.spawn([...options.command], {
    cwd: options.directory,
    env: options.env ?? process.env,
    stdin: "ignore",
    stdout: output,
    stderr: output,
    detached: true,
  });
  closeSync(output);
  recordProcess(pidFile, child.pid, options.stopSignal);
  void child.exited.finally(() => rmSync(pidFile, { force: true }));
  return {
    pid: child.pid,
    exited: child.exited,
    isRunning: () => child.exitCode === null && child.signalCode === null,
    stop: (deadlineMs, signal = options.stopSignal) =>
      stopProcess(child.pid, signal, deadlineMs, child.exited),
    lastOutput: (lines = 5) => lastLines(outputFile, lines),
  };
}

/**
 * Asks `probe` again and again until it says yes.
 * @throws {OperatingError} `start_failed` with the server's last words when it ends, or is not ready after `deadlineMs`.
 */
export async function untilReady(
  server: ServerProcess,
  options: {
    name: string;
    deadlineMs: number;
    signal?: AbortSignal | undefined;
    probe: () => Promise<boolean>;
  },
): Promise<void> {
  const deadline = Date.now() + options.deadlineMs;
  while (!(await options.probe())) {
    options.signal?.throwIfAborted();
    if (!server.isRunning()) throw startFailed(`${options.name} did not start`, server);
    if (Date.now() > deadline)
      throw startFailed(`${options.name} is not ready after ${options.deadlineMs / 1000} s`, server);
    await Bun.sleep(30);
  }
}

/**
 * Runs a tool to its end and gives its exit code, what it wrote to stdout, and all that it wrote (the last 200 lines).
 * When `signal` aborts, the tool gets a SIGINT; the abort is thrown once it has ended.
 */
export async function runTool(
  command: readonly string[],
  options: {
    cwd?: string;
    env?: Record<string, string | undefined>;
    signal?: AbortSignal | undefined;
    onLine?: (line: string) => void;
  } = {},
): Promise<{ code: number; stdout: string; output: string }> {
  options.signal?.throwIfAborted();
  const child = Bun.spawn([...command], {
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    env: options.env ?? process.env,
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    detached: true,
  });
  const interrupt = () => child.kill("SIGINT");
  options.signal?.addEventListener("abort", interrupt);
  try {
    const printed = lastOf(outputLinesMax);
    const all = lastOf(outputLinesMax);
    const onLine = (line: string) => {
      all.add(line);
      options.onLine?.(line);
    };
    const onPrinted = (line: string) => {
      printed.add(line);
      onLine(line);
    };
    await Promise.all([eachLine(child.stdout, onPrinted), eachLine(child.stderr, onLine)]);
    const code = await child.exited;
    options.signal?.throwIfAborted();
    return { code, stdout: printed.text(), output: all.text() };
  } finally {
    options.signal?.removeEventListener("abort", interrupt);
  }
}

/** Stops all that an earlier run left behind: the servers whose pid files are in `dataDirectory` or its folders. */
export async function stopLeftovers(dataDirectory: string): Promise<void> {
  const pidFiles = ["*.pid", "*/*.pid"].flatMap((pattern) => [
    ...new Bun.Glob(pattern).scanSync(dataDirectory),
  ]);
  await Promise.all(pidFiles.map((file) => stopLeftover(join(dataDirectory, file))));
}

async function stopLeftover(pidFile: string): Promise<void> {
  const left = recordedProcess(pidFile);
  if (left !== undefined) await stopProcess(left.pid, left.stopSignal, 10_000);
  rmSync(pidFile, { force: true });
}

/** Signals a process, waits until it is gone, and kills it after `deadlineMs`. `exited` is known for our own children. */
export async function stopProcess(
  pid: number,
  signal: NodeJS.Signals,
  deadlineMs: number,
  exited: Promise<unknown> = untilGone(pid),
): Promise<void> {
  sendSignal(pid, signal);
  const killer = setTimeout(() => sendSignal(pid, "SIGKILL"), deadlineMs);
  await exited;
  clearTimeout(killer);
}

const outputLinesMax = 200;

function startFailed(what: string, server: ServerProcess): OperatingError {
  return new OperatingError("start_failed", { message: `${what}:\n${server.lastOutput()}` });
}

/** Nothing happens when the process has ended meanwhile. */
export function sendSignal(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

async function untilGone(pid: number): Promise<void> {
  const started = processStatus(pid)?.started;
  while (started !== undefined && processStatus(pid)?.started === started) await Bun.sleep(20);
}

function lastLines(file: string, lines: number): string {
  return readFileSync(file, "utf8").trimEnd().split("\n").slice(-lines).join("\n");
}

function lastOf(linesMax: number) {
  const lines: string[] = [];
  return {
    add(line: string): void {
      lines.push(line);
      if (lines.length > linesMax) lines.shift();
    },
    text: () => lines.join("\n"),
  };
}

async function eachLine(stream: ReadableStream<Uint8Array>, onLine: (line: string) => void): Promise<void> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of stream) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    lines.forEach(onLine);
  }
  if (rest !== "") onLine(rest);
}
