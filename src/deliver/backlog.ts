// What the sockets and event streams of one instance were sent and have not read: each has a bound of its own, and all
// together have one here, so that a thousand slow readers of a busy conversation cannot take the memory. Beyond it those
// with the most unread are ended, and resume by number. A reader that was ended keeps what it has for a moment, for the
// close to reach it; when those too hold much, they are cut off.

/** A connection as far as what it has not read is concerned. */
export interface Reader {
  readonly isEnded: boolean;
  /** Ends it so that its client comes again: 1013 for a socket. It answers by `ended`, or by `note` of 0. */
  overrun(): void;
  /** Ends it without a word, and frees what it has unread. */
  cutOff(): void;
}

/** The sum of what is unread. */
export interface Backlog {
  /** In bytes, of those that were ended too. */
  readonly bytes: number;
  /** So many bytes are unread now; 0 when there are none, or the connection is gone. */
  note(reader: Reader, bytes: number): void;
  /** Its close is on its way, behind what is unread. */
  ended(reader: Reader): void;
}

/** How much is taken away at once, so that the largest need not be looked for at each write. */
const relief = 0.75;

/** Open readers have `bytesMax` together; with those that were ended it may be twice as much. */
export function openBacklog(bytesMax: number): Backlog {
  const open = new Unread();
  const ending = new Unread();
  return {
    get bytes() {
      return open.bytes + ending.bytes;
    },
    note(reader, bytes) {
      (reader.isEnded ? ending : open).set(reader, bytes);
      if (open.bytes > bytesMax) open.takeLargest(bytesMax * relief, (largest) => largest.overrun());
      if (open.bytes + ending.bytes > 2 * bytesMax) {
        ending.takeLargest(bytesMax * relief, (largest) => largest.cutOff());
      }
    },
    ended(reader) {
      const bytes = open.get(reader);
      open.set(reader, 0);
      ending.set(reader, bytes);
    },
  };
}

/** Bytes by reader, and their sum; who has none is not in it. */
class Unread {
  readonly #bytes = new Map<Reader, number>();
  bytes = 0;

  get(reader: Reader): number {
    return this.#bytes.get(reader) ?? 0;
  }

  set(reader: Reader, bytes: number): void {
    this.bytes += bytes - this.get(reader);
    if (bytes > 0) this.#bytes.set(reader, bytes);
    else this.#bytes.delete(reader);
  }

  /** Ends readers, the largest first, until no more than `bytesLeft` is there. */
  takeLargest(bytesLeft: number, end: (reader: Reader) => void): void {
    for (const [reader] of [...this.#bytes].toSorted(([, a], [, b]) => b - a)) {
      if (this.bytes <= bytesLeft) return;
      end(reader);
    }
  }
}
