// The arithmetic of a rate limit; take-tokens.lua does the same in Redis. A bucket of tokens is one number: when it
// will be full again, in microseconds (GCRA, ITU-T I.371, A). What is unknown is full, so nothing needs cleaning up.

/** What a bucket holds, and the time in which one more token is there. */
export interface BucketSize {
  capacity: number;
  intervalUs: number;
}

/** One bucket that a check takes a token from. */
export interface WantedToken {
  key: string;
  size: BucketSize;
}

/** What a check came to: the index of the bucket that is empty, and how far each one now is from being full. */
export interface Taken {
  refusedBy: number | undefined;
  untilFullUs: number[];
}

/** Where buckets are kept: when each will be full. */
export interface FullTimes {
  get(key: string): number | undefined;
  set(key: string, fullAtUs: number): unknown;
}

/** How many seconds' tokens a bucket holds. */
const burstSeconds = 2;

/** The bucket of a limit. Its interval is in whole microseconds, so that both sides compute exactly. */
export function bucketSize(perSecond: number): BucketSize {
  return { capacity: burstSeconds * perSecond, intervalUs: Math.max(1, Math.round(1_000_000 / perSecond)) };
}

/** Takes a token from each bucket, or from none if one of them is empty. */
export function takeTokens(buckets: FullTimes, wanted: readonly WantedToken[], nowUs: number): Taken {
  const before = wanted.map((token) => untilFull(buckets, token, nowUs));
  const empty = before.findIndex((us, index) => {
    const { capacity, intervalUs } = (wanted[index] as WantedToken).size;
    return us > (capacity - 1) * intervalUs;
  });
  const untilFullUs = before.map((us, index) =>
    empty === -1 ? us + (wanted[index] as WantedToken).size.intervalUs : us,
  );
  for (const [index, { key }] of wanted.entries()) buckets.set(key, nowUs + (untilFullUs[index] as number));
  return { refusedBy: empty === -1 ? undefined : empty, untilFullUs };
}

/** Puts a token back into each bucket. */
export function giveTokensBack(buckets: FullTimes, given: readonly WantedToken[], nowUs: number): void {
  for (const token of given) {
    const us = untilFull(buckets, token, nowUs) - token.size.intervalUs;
    buckets.set(token.key, nowUs + Math.max(us, 0));
  }
}

/** Whole tokens that a bucket has. */
export function remainingOf({ capacity, intervalUs }: BucketSize, untilFullUs: number): number {
  return Math.floor(capacity - untilFullUs / intervalUs);
}

// A clock that was set back finds times far ahead: no bucket can be further from full than an empty one.
function untilFull(buckets: FullTimes, { key, size }: WantedToken, nowUs: number): number {
  const us = (buckets.get(key) ?? nowUs) - nowUs;
  return Math.min(Math.max(us, 0), size.capacity * size.intervalUs);
}
