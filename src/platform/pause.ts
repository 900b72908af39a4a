// Waiting that ends: when it is told to stop, or by a deadline.
import { OperatingError } from "../model/errors.ts";

/** Waits, or until `signal` aborts; never rejects. */
export function pause(durationMs: number, signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const wake = () => resolve();
  const timer = setTimeout(wake, signal.aborted ? 0 : durationMs);
  signal.addEventListener("abort", wake);
  return promise.finally(() => {
    clearTimeout(timer);
    signal.removeEventListener("abort", wake);
  });
}

/** Up to a tenth more or less, so that instances that started together do not stay in step. */
export function jittered(durationMs: number): number {
  return durationMs * (0.9 + 0.2 * Math.random());
}

/**
 * What `work` comes to, unless the deadline passes first (then a rejection with `code`) or `signal` aborts
 * (then with its reason). The work itself goes on: whoever started it also cuts its link.
 */
export function withDeadline<T>(
  work: Promise<T>,
  deadlineMs: number,
  code: string,
  signal?: AbortSignal,
): Promise<T> {
  const { promise, resolve, reject } = Promise.withResolvers<T>();
  const timer = setTimeout(() => reject(new OperatingError(code)), deadlineMs);
  const abort = () => reject(signal?.reason);
  signal?.addEventListener("abort", abort);
  if (signal?.aborted) abort();
  work.then(resolve, reject);
  return promise.finally(() => {
    clearTimeout(timer);
    signal?.removeEventListener("abort", abort);
  });
}
