// A disk that can be full: a file system of its own in memory, whose size is what is in it for as long as the fault
// lasts. Where this user may not mount one, no process may write to its files instead, which needs no rights.
import { readFileSync, statfsSync } from "node:fs";

/** Of one server's folder. */
export interface Disk {
  /** From now on the server's writes fail. `pid` is its process. */
  fill(pid: number): void;
  free(): void;
  /** When nobody works in it any more. */
  remove(): void;
}

/** More than a run writes; it takes no memory before it is written. */
const sizeMax = "16g";

/** Makes one at a folder that exists and is empty. `report` gets a line when it is not a whole one, or none. */
export function makeDisk(folder: string, report: (line: string) => void): Disk | undefined {
  const mounted = run("mount", "-t", "tmpfs", "-o", `size=${sizeMax},mode=0700`, "tmpfs", folder);
  if (mounted === "") return mountedDisk(folder);
  if (Bun.which("prlimit") !== null) {
    report("disk: no file system may be mounted here; a full disk is writes that fail");
    return limitedDisk();
  }
  report(`disk: no file system may be mounted here (${mounted}), and there is no prlimit; it is never full`);
  return undefined;
}

/** Unmounts what an earlier process left below a folder. */
export function unmountBelow(folder: string): void {
  if (process.platform !== "linux") return;
  const places = readFileSync("/proc/mounts", "utf8")
    .split("\n")
    .map((line) => line.split(" ")[1] ?? "");
  for (const place of places) if (place.startsWith(`${folder}/`)) run("umount", "--lazy", place);
}

function mountedDisk(folder: string): Disk {
  const resize = (size: string) => run("mount", "-o", `remount,size=${size}`, folder);
  return {
    fill() {
      // It cannot be smaller than what is in it, which may grow in this moment.
      for (let triesLeft = 20; ; triesLeft -= 1) {
        const { blocks, bfree, bsize } = statfsSync(folder);
        const refused = resize(String((blocks - bfree) * bsize));
        if (refused === "") return;
        if (triesLeft === 0) throw new Error(`the disk cannot be made full: ${refused}`);
      }
    },
    free: () => void resize(sizeMax),
    remove: () => void run("umount", "--lazy", folder),
  };
}

/** See setrlimit(2): a write that would make a file larger fails with EFBIG; Java ignores the signal. */
function limitedDisk(): Disk {
  let pid = 0;
  return {
    fill(ofPid) {
      pid = ofPid;
      run("prlimit", `--pid=${pid}`, "--fsize=0:unlimited");
    },
    free: () => void run("prlimit", `--pid=${pid}`, "--fsize=unlimited:unlimited"),
    remove: () => undefined,
  };
}

/** What a command said when it failed; nothing when it did not. */
function run(...command: string[]): string {
  try {
    const { exitCode, stderr } = Bun.spawnSync(command, { stdout: "ignore", stderr: "pipe" });
    return exitCode === 0 ? "" : stderr.toString().trim() || `${command[0]} ended with ${exitCode}`;
  } catch (error) {
    return String(error);
  }
}
