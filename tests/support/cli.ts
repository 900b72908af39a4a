// The command line as its users run it: a process of its own, with an environment that holds nothing but what a
// test gives, in a folder that a test chooses.
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

const program = resolve(import.meta.dir, "../../src/main.ts");

/** How a command is run. */
export interface RunOptions {
  env?: Record<string, string>;
  cwd?: string;
  stdin?: string;
}

/** What a command left behind. */
export interface Finished {
  code: number;
  stdout: string;
  stderr: string;
}

/** Starts a command and leaves it running. */
export function startCli(args: string[], { env = {}, cwd = emptyFolder(), stdin }: RunOptions = {}) {
  return Bun.spawn([process.execPath, program, ...args], {
    cwd,
    env: { PATH: process.env["PATH"], ...env },
    stdin: stdin === undefined ? "ignore" : new Blob([stdin]),
    stdout: "pipe",
    stderr: "pipe",
  });
}

/** Runs a command to its end. */
export async function runCli(args: string[], options: RunOptions = {}): Promise<Finished> {
  const child = startCli(args, options);
  const [stdout, stderr, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return { code, stdout, stderr };
}

/** A new folder without a connection file in it or above it. */
export function emptyFolder(): string {
  return mkdtempSync(join(tmpdir(), "chat4all-cli-"));
}

/** The lines of an output. */
export function linesOf(text: string): string[] {
  return text === "" ? [] : text.trimEnd().split("\n");
}
