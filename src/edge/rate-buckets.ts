// Where the buckets of rate limits are: in Redis, so that all instances share them, and in this instance's memory
// while Redis is away. Checks of the same turn of the event loop share one call.
//
// Guaranteed: nobody waits longer than Redis's command timeout, once; with Redis known to be away nobody waits at all.
import { LRUCache } from "lru-cache";
import type { Redis } from "../platform/redis.ts";
import takeTokensScript from "./take-tokens.lua" with { type: "text" };
import { type BucketSize, giveTokensBack, type Taken, takeTokens } from "./token-bucket.ts";

/** What has a bucket of its own. */
export type Owner = "user" | "conversation";

/** The bucket of one user or conversation. */
export interface Bucket {
  owner: Owner;
  id: string;
}

/** Buckets of users and conversations. */
export interface RateBuckets {
  /** Takes a token from each bucket, or from none if one of them is empty; a user's stands before a conversation's. Never rejects. */
  take(buckets: readonly Bucket[]): Promise<Taken>;
  /** Puts the tokens back, without waiting. */
  giveBack(buckets: readonly Bucket[]): void;
}

interface Check {
  buckets: readonly Bucket[];
  givesBack: boolean;
}

/** Checks in one call: Redis does nothing else meanwhile. */
const checksMax = 512;
/** Buckets in memory; the one that was used least recently is forgotten, and full when it is next used. */
const bucketsInMemoryMax = 50_000;
/** After a call that failed Redis is left alone for so long, even if the circuit is not open yet. */
const restMs = 500;

/** Opens the buckets. */
export function openRateBuckets(
  redis: Pick<Redis, "circuitState" | "evaluate">,
  sizes: Record<Owner, BucketSize>,
): RateBuckets {
  const inMemory = new LRUCache<string, number>({ max: bucketsInMemoryMax });
  let gathering: { checks: Check[]; answer: Promise<Taken[]> } | null = null;
  let restsUntilMs = Number.NEGATIVE_INFINITY;

  function add(check: Check): Promise<Taken> {
    if (gathering === null || gathering.checks.length >= checksMax) {
      const checks: Check[] = [];
      gathering = { checks, answer: judge(checks) };
    }
    const index = gathering.checks.push(check) - 1;
    return gathering.answer.then((taken) => taken[index] as Taken);
  }

  async function judge(checks: Check[]): Promise<Taken[]> {
    // Everything that arrives in this turn of the event loop goes into the same call.
    await new Promise<void>((resolve) => setImmediate(resolve));
    gathering = null;
    // A half-open circuit is left to the pings: to try is to wait.
    if (redis.circuitState() === "closed" && performance.now() >= restsUntilMs) {
      try {
        return await judgeInRedis(redis, sizes, checks);
      } catch {
        // That Redis is away is told by redis.ts, once; here it costs what other instances have counted.
        restsUntilMs = performance.now() + restMs;
      }
    }
    return checks.map((check) => judgeInMemory(inMemory, sizes, check));
  }

  return {
    take: (buckets) => add({ buckets, givesBack: false }),
    giveBack: (buckets) => void add({ buckets, givesBack: true }),
  };
}

async function judgeInRedis(
  redis: Pick<Redis, "evaluate">,
  { user, conversation }: Record<Owner, BucketSize>,
  checks: readonly Check[],
): Promise<Taken[]> {
  const keys = checks.flatMap(({ buckets }) => buckets.map(keyOf));
  const letters = checks.map(letterOf).join("");
  const args = [user.intervalUs, user.capacity, conversation.intervalUs, conversation.capacity, letters];
  const answer = (await redis.evaluate(takeTokensScript, keys, args)) as number[];
  let read = 0;
  return checks.map(({ buckets }) => {
    const empty = answer[read] as number;
    const untilFullUs = answer.slice(read + 1, read + 1 + buckets.length);
    read += 1 + buckets.length;
    return { refusedBy: empty === 0 ? undefined : empty - 1, untilFullUs };
  });
}

function letterOf({ buckets, givesBack }: Check): string {
  const letter = buckets.length === 2 ? "b" : buckets[0]?.owner === "user" ? "u" : "c";
  return givesBack ? letter.toUpperCase() : letter;
}

function judgeInMemory(
  inMemory: LRUCache<string, number>,
  sizes: Record<Owner, BucketSize>,
  { buckets, givesBack }: Check,
): Taken {
  const tokens = buckets.map((bucket) => ({ key: keyOf(bucket), size: sizes[bucket.owner] }));
  // A monotonic clock, which nobody sets.
  const nowUs = Math.floor(performance.now() * 1000);
  if (!givesBack) return takeTokens(inMemory, tokens, nowUs);
  giveTokensBack(inMemory, tokens, nowUs);
  return { refusedBy: undefined, untilFullUs: [] };
}

function keyOf({ owner, id }: Bucket): string {
  return `rate:${owner}:${id}`;
}
