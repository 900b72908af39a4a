/** One program at a time on a data directory. */
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { OperatingError } from "../../src/model/errors.ts";
import { recordedProcess, recordProcess } from "./pid.ts";

/** The data directory is in use by the process `pid`. */
export class InUse extends OperatingError {
  readonly pid: number;

  constructor(pid: number) {
    super("in_use");
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
  const file = join(directory, "in-use");
  const owner = recordedProcess(file);
  if (owner !== undefined) throw new InUse(owner.pid);
  rmSync(file, { force: true });
  // Of two that got here at the same time, the one that creates the file goes on.
  try {
    writeFileSync(file, "", { flag: "wx" });
  } catch {
    throw new InUse(recordedProcess(file)?.pid ?? 0);
  }
  recordProcess(file, process.pid, "SIGTERM");
  return () => rmSync(file, { force: true });
}
