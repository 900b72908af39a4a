// The newest history items of a conversation, in Redis. Every change of a conversation, an edit too, is an event with
// a number of its own: items noted for its last number are the items, and those noted for another are not used.
import type { Redis } from "../platform/redis.ts";

/** Items are history JSON texts, newest first. */
export interface RecentCache {
  /** The items noted for exactly this last number; null otherwise, and while Redis is away. */
  read(conversationId: string, lastSequenceNumber: number): Promise<string[] | null>;
  /** Notes them for a while. Never rejects. */
  write(conversationId: string, lastSequenceNumber: number, items: readonly string[]): Promise<void>;
}

const recentItemsMax = 50;
const charactersMax = 256 * 1024;
const lifetimeMs = 3_600_000;
// JSON text holds no control characters but white space.
const separator = "\u001e";

/** A cache with one key for each conversation. */
export function openRecentCache(redis: Redis): RecentCache {
  return {
    async read(conversationId, lastSequenceNumber) {
      const text = await redis.get(keyOf(conversationId)).catch(() => null);
      const head = `${lastSequenceNumber}${separator}`;
      return text?.startsWith(head) ? text.slice(head.length).split(separator) : null;
    },

    async write(conversationId, lastSequenceNumber, items) {
      const text = [lastSequenceNumber, ...items.slice(0, recentItemsMax)].join(separator);
      if (items.length === 0 || text.length > charactersMax) return;
      await redis.set(keyOf(conversationId), text, lifetimeMs).catch(() => undefined);
    },
  };
}

function keyOf(conversationId: string): string {
  return `recent:${conversationId}`;
}
