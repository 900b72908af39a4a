// The newest history items of a conversation, in Redis. Every change of a conversation, an edit too, is an event with
// a number of its own: items noted for its last number are the items, and those noted for another are not used.
import { type RecentItems, recentItemsMax } from "../model/recent-items.ts";
import type { Redis } from "../platform/redis.ts";

const charactersMax = 256 * 1024;
const lifetimeMs = 3_600_000;
// JSON text holds no control characters but white space.
const separator = "\u001e";

/** A cache with one key for each conversation. */
export function openRecentCache(redis: Redis): RecentItems {
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
