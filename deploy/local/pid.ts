/** Which process is which: a pid alone may be given away again, a pid with the moment of its start is not. */
import { existsSync, readFileSync, writeFileSync } from "node:fs";

/** A process as written down by `recordProcess`. */
export interface RecordedProcess {
  readonly pid: number;
  readonly stopSignal: NodeJS.Signals;
}

/** Writes down which process this is, and what asks it to stop. */
export function recordProcess(file: string, pid: number, stopSignal: NodeJS.Signals): void {
  writeFileSync(file, JSON.stringify({ pid, stopSignal, started: processStatus(pid)?.started }), {
    mode: 0o600,
  });
}

/** The process of a file of `recordProcess`, if that very one still runs: a pid that was given away since does not count. */
export function recordedProcess(file: string): RecordedProcess | undefined {
  if (!existsSync(file)) return undefined;
  try {
    const recorded = JSON.parse(readFileSync(file, "utf8")) as RecordedProcess & { started?: string };
    const { started } = recorded;
    return started !== undefined && processStatus(recorded.pid)?.started === started ? recorded : undefined;
  } catch {
    return undefined; // A file that was cut off by a crash names nobody.
  }
}

/** A living process's parent, and a mark of its start within which boot. Nothing for one that is gone, or a zombie. */
export function processStatus(pid: number): { parent: number; started: string } | undefined {
  if (process.platform !== "linux") {
    const [parent, ...started] = ps(pid).trim().split(/\s+/);
    return started.length === 0 ? undefined : { parent: Number(parent), started: started.join(" ") };
  }
  try {
    // See proc_pid_stat(5). The second field, the name, may hold spaces and brackets: count from the third on.
    const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1)?.split(" ") ?? [];
    const boot = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
    return fields[0] === "Z" ? undefined : { parent: Number(fields[1]), started: `${boot} ${fields[19]}` };
  } catch {
    return undefined;
  }
}

function ps(pid: number): string {
  return Bun.spawnSync(["ps", "-o", "ppid=,lstart=", "-p", String(pid)]).stdout.toString();
}
