// Redis comes back in, what it lost goes out again, from Postgres: the newest number of each conversation that moved
// meanwhile is announced, so that gateways fetch what their sockets missed; recent items are noted anew; gateways are
// asked to put back what only they know (presence). Nobody waits for any of it.
import findMoved from "../../sql/backfill/find-moved.sql" with { type: "text" };
import historyBefore from "../../sql/conversations/history-before.sql" with { type: "text" };
import { type HistoryRow, historyJson } from "../model/event.ts";
import { recentItemsMax } from "../model/recent-items.ts";
import type { Log } from "../platform/log.ts";
import type { Postgres } from "../platform/postgres.ts";
import type { Redis } from "../platform/redis.ts";
import type { Watchdogs } from "../platform/watchdog.ts";
import { type Return, watchRedis } from "./watch.ts";

/** A conversation and its newest number. */
export interface Moved {
  conversation_id: string;
  sequence_number: number;
}

/** What the backfill needs; how instances are told is theirs who deliver. */
export interface BackfillOptions {
  postgres: Postgres;
  redis: Redis;
  log: Log;
  watchdogs: Watchdogs;
  report(system: "redis", state: "up" | "degraded"): void;
  /** Tells all instances where conversations stand. */
  announce(moved: readonly Moved[]): void;
  /** Asks all instances to put their temporary states back. */
  askForStates(): void;
  /** Notes a conversation's newest items, newest first. */
  noteRecent(moved: Moved, items: readonly string[]): Promise<void>;
}

/** A backfill while it runs. */
export interface Backfill {
  stop(): Promise<void>;
}

const announcedMax = 20_000;
const rebuiltMax = 1000;
const rebuiltAtOnce = 4;
/** An event's time is taken before its commit. */
const commitMarginMs = 10_000;
/** Longer ago than any event. */
const everMs = 100 * 365 * 86_400_000;
const silenceMaxMs = 5000;

/** Starts to watch Redis. Returns at once, whatever is up. */
export function startBackfill(options: BackfillOptions): Backfill {
  const { redis, watchdogs, report } = options;
  const stopping = new AbortController();
  const watching = watchRedis({
    redis,
    watchdog: watchdogs.watch(silenceMaxMs),
    stopping: stopping.signal,
    onState: (state) => report("redis", state),
    onReturn: (found) => putRight(options, found),
  });
  return {
    async stop() {
      stopping.abort();
      await watching;
    },
  };
}

/** Announces and rebuilds, and tells in one line what it did. Rejects when Postgres or Redis is away again. */
async function putRight(options: BackfillOptions, { awaySinceMs, isEmpty }: Return): Promise<void> {
  const { postgres, log, announce, askForStates } = options;
  const startedAt = performance.now();
  if (isEmpty) askForStates();
  const awayMs = awaySinceMs === null ? null : Math.round(startedAt - awaySinceMs);
  const moved = awayMs === null ? [] : await readMoved(postgres, awayMs + commitMarginMs, announcedMax);
  if (moved.length > 0) announce(moved);
  const toRebuild = isEmpty ? await readMoved(postgres, everMs, rebuiltMax) : moved.slice(0, rebuiltMax);
  await rebuildRecent(options, toRebuild);
  log.info(
    {
      was_empty: isEmpty,
      away_ms: awayMs,
      announced: moved.length,
      rebuilt: toRebuild.length,
      took_ms: Math.round(performance.now() - startedAt),
    },
    "put right what Redis lost",
  );
}

async function readMoved(postgres: Postgres, withinMs: number, max: number): Promise<Moved[]> {
  const rows = await postgres.query<{ id: string; last_sequence_number: number }>(findMoved, [withinMs, max]);
  return rows.map((row) => ({ conversation_id: row.id, sequence_number: row.last_sequence_number }));
}

async function rebuildRecent(
  { postgres, noteRecent }: BackfillOptions,
  conversations: readonly Moved[],
): Promise<void> {
  const remaining = conversations.values();
  const rebuild = async () => {
    for (const moved of remaining) {
      const args = [moved.conversation_id, moved.sequence_number + 1, recentItemsMax];
      const rows = await postgres.query<HistoryRow>(historyBefore, args);
      await noteRecent(moved, rows.map(historyJson));
    }
  };
  await Promise.all(Array.from({ length: rebuiltAtOnce }, rebuild));
}
