// Waiting for what has no signal of its own.

const stepMs = 5;

/** Resolves when `isSo` answers true; rejects, with what was waited for, when it does not for `deadlineMs`. */
export async function until(
  isSo: () => boolean | Promise<boolean>,
  what: string,
  deadlineMs = 15_000,
): Promise<void> {
  const endMs = performance.now() + deadlineMs;
  while (!(await isSo())) {
    if (performance.now() > endMs) throw new Error(`waited ${deadlineMs} ms in vain until ${what}`);
    await Bun.sleep(stepMs);
  }
}
