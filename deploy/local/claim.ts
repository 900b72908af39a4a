/** One program at a time on a data directory. */
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { recordedProcess, recordProcess } from "./process.ts";

/** The data directory is in use by the process `pid`. */
export class InUse extends Error {
  readonly pid: number;

  constructor(pid: number) {
    super(`in use by process ${pid}`);
    this.pid = pid;
  }
}

/**
 * Takes the data directory for this process, creating it if need be, and gives the function that lets it go.
 * A claim of a process that is gone does not count.
 * @throws {InUse} when another process has it.
 */
export function claimDirectory(directory: string): () => void {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const file = join(directory, "running.pid");
  const owner = recordedProcess(file);
  if (owner !== undefined) throw new InUse(owner);
  rmSync(file, { force: true });
  // Of two that got here at the same time, the one that creates the file goes on.
  try {
    writeFileSync(file, "", { flag: "wx" });
  } catch {
    throw new InUse(recordedProcess(file) ?? 0);
  }
  recordProcess(file, process.pid);
  return () => rmSync(file, { force: true });
}
