// Up to which number each conversation is on its public topics. The table tells; a bounded cache of it stands before.
// Guaranteed: `read` never answers a number above the table's. A cached one may be below, when another router has
// taken the conversation on since; then a repeat passes, and nothing is lost.
import { LRUCache } from "lru-cache";
import raiseWatermarksSql from "../../sql/router/raise-watermarks.sql" with { type: "text" };
import readWatermarksSql from "../../sql/router/read-watermarks.sql" with { type: "text" };
import type { Postgres } from "../platform/postgres.ts";

/** Sequence numbers by conversation id. */
export type Numbers = Map<string, number>;

/** The watermarks, as one router sees and raises them. */
export interface Watermarks {
  /** The watermarks of these conversations; 0 for one that has none. */
  read(conversationIds: Set<string>): Promise<Numbers>;
  /** Notes that everything up to these numbers is acknowledged by Kafka. */
  raise(numbers: Numbers): Promise<void>;
  /** At each new assignment of partitions: other routers may have gone on meanwhile. */
  forget(): void;
}

const cachedConversationsMax = 50_000;

/** Opens the watermarks of one router. */
export function openWatermarks(postgres: Postgres): Watermarks {
  const cache = new LRUCache<string, number>({ max: cachedConversationsMax });

  return {
    async read(conversationIds) {
      const found: Numbers = new Map();
      const unknown: string[] = [];
      for (const id of conversationIds) {
        const cached = cache.get(id);
        if (cached === undefined) unknown.push(id);
        found.set(id, cached ?? 0);
      }
      if (unknown.length === 0) return found;
      const rows = await postgres.query<{ conversation_id: string; sequence_number: number }>(
        readWatermarksSql,
        [unknown],
      );
      for (const row of rows) found.set(row.conversation_id, row.sequence_number);
      return found;
    },
    async raise(numbers) {
      if (numbers.size === 0) return;
      await postgres.query(raiseWatermarksSql, [[...numbers.keys()], [...numbers.values()]]);
      // Only now: the cache must not run ahead of the table.
      for (const [id, number] of numbers) cache.set(id, number);
    },
    forget: () => cache.clear(),
  };
}
