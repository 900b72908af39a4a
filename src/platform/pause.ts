// Waiting, for loops that can be told to stop.

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
