// What a stage could not pass, and how long it waits before the next try. Each hold is of one item, such as a message,
// and holds back its whole group: nothing of a conversation may overtake what waits.
// Held in memory only: whoever takes a shard or partition over begins to count anew.

/** Tries before an item is parked as a dead letter: over 3 s, since the pauses between are 200, 400, 800 and 1,600 ms. */
export const triesMax = 5;
const firstPauseMs = 200;

/** The holds of one shard or partition. */
export interface Holds {
  /**
   * Notes that an item could not be passed. Answers its tries so far, or 0 when so many groups are held already
   * that it was not noted: then it comes again untold.
   */
  fail(group: string, item: string): number;
  /** Whether this very item failed before, and its pause is over. */
  isSuspect(group: string, item: string): boolean;
  /** Whether the group's item pauses. */
  isWaiting(group: string): boolean;
  /** The groups whose item pauses. */
  waiting(): string[];
  /** When the next pause is over, in milliseconds from now; undefined when none is held. */
  nextTryMs(): number | undefined;
  release(group: string): void;
  /** Releases all others. */
  keepOnly(groups: readonly string[]): void;
  isFull(): boolean;
  isEmpty(): boolean;
}

/** No holds yet; `now` is a monotonic clock in milliseconds. */
export function openHolds(groupsMax: number, now: () => number = () => performance.now()): Holds {
  const held = new Map<string, { item: string; tries: number; untilMs: number }>();

  const isWaiting = (group: string) => {
    const hold = held.get(group);
    return hold !== undefined && hold.untilMs > now();
  };
  return {
    fail(group, item) {
      const before = held.get(group);
      if (before === undefined && held.size >= groupsMax) return 0;
      const tries = before?.item === item ? before.tries + 1 : 1;
      held.set(group, { item, tries, untilMs: now() + firstPauseMs * 2 ** (tries - 1) });
      return tries;
    },
    isSuspect: (group, item) => held.get(group)?.item === item && !isWaiting(group),
    isWaiting,
    waiting: () => [...held.keys()].filter(isWaiting),
    nextTryMs() {
      if (held.size === 0) return undefined;
      const untilMs = Math.min(...held.values().map((hold) => hold.untilMs));
      return Math.max(0, untilMs - now());
    },
    release: (group) => held.delete(group),
    keepOnly(groups) {
      const kept = new Set(groups);
      for (const group of held.keys()) if (!kept.has(group)) held.delete(group);
    },
    isFull: () => held.size >= groupsMax,
    isEmpty: () => held.size === 0,
  };
}
