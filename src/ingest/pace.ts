// How fast messages are stored, as measured, and from that how long one that came now would wait.

/** Measures a queue before batches. */
export interface Pace {
  /** A batch leaves; the answer is to be called when it is over, stored or not. */
  leave(rows: number): () => void;
  /** Milliseconds that a message behind so many rows, those under way included, is likely to wait. */
  expectedWaitMs(rows: number): number;
}

/** So many rows weigh as much as all that was measured before. */
const rowsRemembered = 1024;

/** Starts without an opinion: nothing waits until something was measured. */
export function openPace(): Pace {
  const startedAt = new Set<{ ms: number }>();
  let endedAtMs = Number.NEGATIVE_INFINITY;
  let msPerRow = 0;

  return {
    leave(rows) {
      const start = { ms: performance.now() };
      startedAt.add(start);
      return () => {
        // Of batches side by side each counts for the time since the one before it ended.
        const now = performance.now();
        const sample = (now - Math.max(start.ms, endedAtMs)) / rows;
        msPerRow += (sample - msPerRow) * Math.min(1, rows / rowsRemembered);
        endedAtMs = now;
        startedAt.delete(start);
      };
    },

    expectedWaitMs(rows) {
      // A batch that is not over after so long is a sign in itself: Postgres stands still.
      const [oldest] = startedAt;
      const stalledMs = oldest === undefined ? 0 : performance.now() - oldest.ms;
      return Math.max(rows * msPerRow, stalledMs);
    },
  };
}
