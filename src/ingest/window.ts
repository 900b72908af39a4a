// How many messages may wait or be stored at once, so that each of them leaves in a batch soon. It follows what is seen:
// when the oldest message of a batch had to wait for longer than the target, fewer may come; when messages were refused
// although those that left had not waited, more may. What cannot be known here, such as how busy Postgres and this
// process are, shows in that one time. (CoDel judges a queue by the same sign, RFC 8289; the steps are those of TCP.)

/** Between which bounds the window moves, and by which sign. */
export interface WindowSettings {
  rowsMin: number;
  rowsMax: number;
  /** How long a message may wait for its batch to leave. */
  waitMsTarget: number;
}

/** The bound of a queue. */
export interface Window {
  /** Whether there is no room beside so many. */
  isFull(rows: number): boolean;
  /** A batch leaves, whose oldest message has waited for so long. */
  left(rows: number, waitedMs: number): void;
}

/** What is left of the window after a batch that waited for too long. */
const shrinking = 0.95;
/** So much of what left in time may come in addition. */
const growing = 0.1;

/** Opens at its widest quarter. */
export function openWindow({ rowsMin, rowsMax, waitMsTarget }: WindowSettings): Window {
  let rowsNow = Math.max(rowsMin, rowsMax / 4);
  let hasRefused = false;
  return {
    isFull(rows) {
      if (rows < rowsNow) return false;
      hasRefused = true;
      return true;
    },
    left(rows, waitedMs) {
      if (waitedMs > waitMsTarget) rowsNow = Math.max(rowsMin, rowsNow * shrinking);
      else if (hasRefused) rowsNow = Math.min(rowsMax, rowsNow + rows * growing);
      hasRefused = false;
    },
  };
}
