// Asks Postgres for the newest numbers of the conversations that have a room here, so that nothing that was lost on
// the way stays lost: often while Redis is away, else once a second, since another instance may be the one that is cut
// off from Redis.
import newestNumbers from "../../sql/deliver/newest-numbers.sql" with { type: "text" };
import type { Log } from "../platform/log.ts";
import type { Postgres } from "../platform/postgres.ts";
import type { Redis } from "../platform/redis.ts";
import type { Rooms } from "./rooms.ts";

/** What polling needs. */
export interface NewestPollSettings {
  postgres: Postgres;
  redis: Redis;
  rooms: Rooms;
  log: Log;
  /** LIVE_POLL_MS: how often while Redis is away. */
  pollIntervalMs: number;
}

/** Polls until it is closed. */
export interface NewestPoll {
  /** Asks for these at once; a failure is cured by the next poll. */
  ask(conversationIds: readonly string[]): Promise<void>;
  close(): void;
}

const safetyIntervalMs = 1000;
/** A look at very many rooms is followed by a rest of so many times its length, up to so long. */
const restOfLook = 9;
const restMsMax = 5000;
const tickMs = 50;
const conversationsPerQueryMax = 1000;

/** Starts polling. */
export function openNewestPoll({
  postgres,
  redis,
  rooms,
  log,
  pollIntervalMs,
}: NewestPollSettings): NewestPoll {
  let isClosed = false;
  let isPolling = false;
  let nextSafetyPollAt = 0;
  let lastPollAt = performance.now();

  /** Answers whether all of it was answered. */
  const look = async (conversationIds: readonly string[]): Promise<boolean> => {
    try {
      for (let start = 0; start < conversationIds.length && !isClosed; start += conversationsPerQueryMax) {
        const some = conversationIds.slice(start, start + conversationsPerQueryMax);
        const rows = await postgres.query<{ id: string; last_sequence_number: number }>(newestNumbers, [
          some,
        ]);
        for (const row of rows) rooms.find(row.id)?.announce(row.last_sequence_number);
      }
      return true;
    } catch (error) {
      log.debug({ err: error }, "newest numbers could not be read");
      return false;
    }
  };

  const poll = async () => {
    const now = performance.now();
    const isDue = redis.state() === "up" ? now >= nextSafetyPollAt : now - lastPollAt >= pollIntervalMs;
    if (isPolling || !isDue) return;
    isPolling = true;
    lastPollAt = now;
    const isAnswered = await look(rooms.conversationIds());
    isPolling = false;
    // One that failed took as long as Postgres was away, which says nothing of its cost.
    const tookMs = isAnswered ? performance.now() - now : 0;
    const restMs = Math.min(restOfLook * tookMs, restMsMax);
    nextSafetyPollAt = now + Math.max(safetyIntervalMs, tookMs + restMs);
  };
  const timer = setInterval(() => void poll(), Math.min(tickMs, pollIntervalMs));

  return {
    async ask(conversationIds) {
      await look(conversationIds);
    },
    close() {
      isClosed = true;
      clearInterval(timer);
    },
  };
}
