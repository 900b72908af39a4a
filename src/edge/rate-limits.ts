// How often a user may add something, and how much a conversation may take. What is refused is refused before
// anything of it is stored, and is told by the fields of draft-ietf-httpapi-ratelimit-headers-06: how much a bucket
// holds, how much is left, and the seconds until it is full again.
import { Problem } from "../model/errors.ts";
import type { Redis } from "../platform/redis.ts";
import { type Bucket, type Owner, openRateBuckets } from "./rate-buckets.ts";
import { type BucketSize, bucketSize, remainingOf, type Taken } from "./token-bucket.ts";

/** Whose limits something counts for. */
export interface CountedFor {
  user?: string;
  conversation?: string;
}

/** The header fields of an answer. */
export type AnswerHeaders = Record<string, unknown>;

/** The limits of one server. */
export interface RateLimits {
  /**
   * Does the work if the limits allow it, and notes in `headers`, which a problem's answer has too, how they stand:
   * of several the one with the least left. Throws Problem 429 without having begun, and whatever the work throws.
   */
  within<T>(
    countedFor: CountedFor,
    headers: AnswerHeaders | undefined,
    work: () => Promise<T> | T,
  ): Promise<T>;
}

const details: Record<Owner, string> = {
  user: "This user's limit of requests is reached",
  conversation: "This conversation's limit of messages is reached",
};

/** Opens the limits; one of 0 is off, and costs nothing. */
export function openRateLimits(
  redis: Pick<Redis, "circuitState" | "evaluate">,
  perSecond: Record<Owner, number>,
): RateLimits {
  const sizes = { user: bucketSize(perSecond.user), conversation: bucketSize(perSecond.conversation) };
  const rateBuckets = openRateBuckets(redis, sizes);

  const bucketsOf = ({ user, conversation }: CountedFor): Bucket[] => {
    const buckets: Bucket[] = [];
    if (user !== undefined && perSecond.user > 0) buckets.push({ owner: "user", id: user });
    if (conversation !== undefined && perSecond.conversation > 0) {
      buckets.push({ owner: "conversation", id: conversation.toLowerCase() });
    }
    return buckets;
  };

  return {
    async within(countedFor, headers, work) {
      const buckets = bucketsOf(countedFor);
      if (buckets.length === 0) return await work();
      const standing = standingOf(buckets, sizes, await rateBuckets.take(buckets));
      if (headers !== undefined) note(headers, standing);
      if (standing.refused) throw refusal(standing);
      try {
        return await work();
      } catch (error) {
        const returned = buckets.filter((bucket) => wasNotTheirs(bucket.owner, error));
        if (returned.length > 0) rateBuckets.giveBack(returned);
        throw error;
      }
    },
  };
}

// Strangers use up nobody's limit: not a conversation's that they have no part in, nor a user's by a revoked token.
function wasNotTheirs(owner: Owner, error: unknown): boolean {
  if (!(error instanceof Problem)) return false;
  if (error.status === 401) return true;
  return owner === "conversation" && (error.status === 403 || error.status === 404);
}

/** How the limit stands of which the least is left. */
interface Standing {
  owner: Owner;
  size: BucketSize;
  refused: boolean;
  remaining: number;
  untilFullUs: number;
}

function standingOf(buckets: Bucket[], sizes: Record<Owner, BucketSize>, taken: Taken): Standing {
  const standings = buckets.map(({ owner }, index): Standing => {
    const size = sizes[owner];
    const untilFullUs = taken.untilFullUs[index] as number;
    const refused = taken.refusedBy === index;
    return { owner, size, refused, untilFullUs, remaining: remainingOf(size, untilFullUs) };
  });
  const refusing = standings.find(({ refused }) => refused);
  return refusing ?? standings.reduce((least, other) => (other.remaining < least.remaining ? other : least));
}

function note(headers: AnswerHeaders, standing: Standing): void {
  const noted = headers["ratelimit-remaining"];
  if (noted === undefined || standing.remaining < Number(noted)) Object.assign(headers, fieldsOf(standing));
}

function fieldsOf({ size, remaining, untilFullUs }: Standing): Record<string, string> {
  return {
    "ratelimit-limit": String(size.capacity),
    "ratelimit-remaining": String(remaining),
    "ratelimit-reset": String(Math.ceil(untilFullUs / 1_000_000)),
  };
}

function refusal({ owner, size, untilFullUs }: Standing): Problem {
  const oneMoreUs = untilFullUs - (size.capacity - 1) * size.intervalUs;
  const retryAfterSeconds = Math.max(1, Math.ceil(oneMoreUs / 1_000_000));
  const detail = `${details[owner]}; try again in ${retryAfterSeconds} s.`;
  return new Problem(429, "rate_limited", detail, { retryAfterSeconds });
}
