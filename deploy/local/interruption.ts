/** When a program that was started by hand shall stop. */
import { OperatingError } from "../../src/model/errors.ts";
import { processStatus } from "./pid.ts";

/** Whether this runs under Node's `npx`, on a machine that may have no Bun of its own. */
export const isUnderNpx = process.execPath.includes("/_npx/");

/**
 * Aborts with the OperatingError `interrupted` at a Ctrl-C, a SIGTERM or a SIGHUP, and calls `announce` once then.
 * Asking again changes nothing: each part that stops has a deadline of its own.
 */
export function onInterruption(announce: () => void): AbortSignal {
  const interrupted = new AbortController();
  const interrupt = () => {
    if (interrupted.signal.aborted) return;
    announce();
    interrupted.abort(new OperatingError("interrupted"));
  };
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, interrupt);
  if (isUnderNpx) watchNpx(interrupt);
  return interrupted.signal;
}

/** Resolves when `signal` aborts. */
export function untilAborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve());
  });
}

/** A SIGTERM ends npx and its shell, but is not passed on to `bun run` below them, nor from there to here. */
function watchNpx(onGone: () => void): void {
  const shell = processStatus(process.ppid)?.parent;
  const started = shell === undefined ? undefined : processStatus(shell)?.started;
  if (shell === undefined || started === undefined) return;
  const watch = setInterval(() => {
    if (processStatus(shell)?.started === started) return;
    clearInterval(watch);
    onGone();
  }, 500);
  watch.unref();
}
