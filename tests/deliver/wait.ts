// Waiting for what has no signal of its own.

const stepMs = 5;

/** Resolves when `condition` holds; throws, with what was waited for, when it does not for `deadlineMs`. */
export async function untilTrue(
  condition: () => boolean | Promise<boolean>,
  what: string,
  deadlineMs = 10_000,
): Promise<void> {
  const deadline = performance.now() + deadlineMs;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`waited ${deadlineMs} ms in vain until ${what}`);
    await Bun.sleep(stepMs);
  }
}
