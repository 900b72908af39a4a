// Tells whether the loops of a thread still turn. Each loop beats at every turn, and says so when it rightly waits
// for something that may be away for hours; a loop that does neither for too long makes the thread count as dead.

/** One loop's own. */
export interface Watchdog {
  beat(): void;
  /** What `promise` comes to; however long that takes, the loop counts as alive meanwhile. */
  wait<T>(promise: Promise<T>): Promise<T>;
  /** The loop has ended. */
  end(): void;
}

/** All loops of one thread. */
export interface Watchdogs {
  /** For a loop that must beat at least every `silenceMaxMs`. */
  watch(silenceMaxMs: number): Watchdog;
  /** Whether every loop has beaten in time or rightly waits. */
  areQuiet(): boolean;
}

/** Watchdogs by a monotonic clock in milliseconds. */
export function openWatchdogs(now: () => number = () => performance.now()): Watchdogs {
  const deadlines = new Map<Watchdog, number>();

  function watch(silenceMaxMs: number): Watchdog {
    const watchdog: Watchdog = {
      beat: () => deadlines.set(watchdog, now() + silenceMaxMs),
      async wait(promise) {
        deadlines.set(watchdog, Number.POSITIVE_INFINITY);
        try {
          return await promise;
        } finally {
          watchdog.beat();
        }
      },
      end: () => deadlines.delete(watchdog),
    };
    watchdog.beat();
    return watchdog;
  }

  function areQuiet(): boolean {
    const at = now();
    return [...deadlines.values()].every((deadline) => at <= deadline);
  }

  return { watch, areQuiet };
}
