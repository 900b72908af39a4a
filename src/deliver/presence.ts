// Who is connected to a conversation by a socket: a temporary state. What this instance holds is in its own memory;
// Redis knows that of all instances, so that a user on two of them is online once. Entries of an instance that died
// run out, and whoever notices tells. While Redis is away each instance goes by its own memory.

import { OperatingError } from "../model/errors.ts";
import type { Log } from "../platform/log.ts";
import { pause } from "../platform/pause.ts";
import type { Redis } from "../platform/redis.ts";
import { encodeFrame } from "./frames.ts";
import type { Hub } from "./hub.ts";
import type { Sink } from "./room.ts";

/** Presence of the users on this instance. */
export interface Presence {
  /** A socket subscribed: the others are told if it is the user's first, and it is told who is online. Never rejects. */
  entered(conversationId: string, userId: string, sink: Sink): Promise<void>;
  /** A subscription of a socket ended: the others are told if it was the user's last. Never rejects. */
  left(conversationId: string, userId: string): Promise<void>;
  close(): void;
}

/** What changed, as the script tells: who came, who went, who is online now (not all of many). */
type Change = [came: string[], went: string[], online: string[]];

const lifetimeMs = 60_000;
const refreshIntervalMs = 20_000;
const conversationsAtOnce = 50;
const toldOnlineMax = 100;
/** Beyond so many entries in a conversation nobody is told who comes and goes: that would be all, for each of them. */
const crowd = 1000;
/** Questions to Redis that are under way; beyond that an instance goes by its memory until entries are renewed. */
const changesAtOnceMax = 1000;

// KEYS[1]: a conversation's entries `instance user`, scored by when they run out. ARGV: instance, lifetime in ms,
// "here" or "gone", how many to tell at most, how many are a crowd, users. Users that ran out count as online until
// somebody finds out here.
const script = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function users()
  local found = {}
  for _, entry in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do found[string.sub(entry, 38)] = true end
  return found
end
local isCrowd = redis.call('ZCARD', KEYS[1]) > tonumber(ARGV[5])
local before = isCrowd and {} or users()
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
for i = 6, #ARGV do
  local entry = ARGV[1] .. ' ' .. ARGV[i]
  if ARGV[3] == 'here' then redis.call('ZADD', KEYS[1], now + ARGV[2], entry)
  else redis.call('ZREM', KEYS[1], entry) end
end
redis.call('PEXPIRE', KEYS[1], 2 * ARGV[2])
if isCrowd then return {{}, {}, {}} end
local after = users()
local came, went, online = {}, {}, {}
for user in pairs(after) do
  if not before[user] then came[#came + 1] = user end
  if #online < tonumber(ARGV[4]) then online[#online + 1] = user end
end
for user in pairs(before) do if not after[user] then went[#went + 1] = user end end
return {came, went, online}`;

/** Starts keeping presence fresh; `close` stops it. */
export function openPresence({ hub, redis, log }: { hub: Hub; redis: Redis; log: Log }): Presence {
  const here = new Map<string, Map<string, number>>();
  const closing = new AbortController();

  const change = openChanges(redis, hub.instanceId);

  const tell = (conversationId: string, userId: string, status: "online" | "offline", except?: Sink) =>
    hub.signal(
      { conversation_id: conversationId, frame: presenceFrame(conversationId, userId, status) },
      except,
    );

  // Puts back or renews what this instance holds, a few conversations at a time.
  const renew = async () => {
    const conversationIds = [...here.keys()];
    for (
      let start = 0;
      start < conversationIds.length && !closing.signal.aborted;
      start += conversationsAtOnce
    ) {
      await Promise.all(
        conversationIds.slice(start, start + conversationsAtOnce).map(async (conversationId) => {
          const [, went] = await change(conversationId, "here", [
            ...(here.get(conversationId)?.keys() ?? []),
          ]);
          for (const userId of went) tell(conversationId, userId, "offline");
        }),
      );
    }
  };
  const renewQuietly = () =>
    renew().catch((error: unknown) => log.debug({ err: error }, "presence could not be renewed"));
  // Also by itself when Redis is back: the word of an epoch may be said before this instance hears again.
  hub.onEpoch(() => void renewQuietly());
  redis.onStateChange((state) => {
    if (state === "up") void renewQuietly();
  });
  const keepFresh = async () => {
    while (!closing.signal.aborted) {
      await pause(refreshIntervalMs, closing.signal);
      await renewQuietly();
    }
  };
  void keepFresh();

  return {
    async entered(conversationId, userId, sink) {
      const users = here.get(conversationId) ?? new Map<string, number>();
      const isFirst = !users.has(userId);
      here.set(conversationId, users.set(userId, (users.get(userId) ?? 0) + 1));
      const byMemory: Change =
        users.size > crowd
          ? [[], [], []]
          : [isFirst ? [userId] : [], [], [...users.keys()].slice(0, toldOnlineMax)];
      const [came, went, online] = await change(conversationId, "here", [userId]).catch(() => byMemory);
      for (const other of online) {
        if (other !== userId) sink.signal?.(presenceFrame(conversationId, other, "online"));
      }
      for (const other of came) tell(conversationId, other, "online", sink);
      for (const other of went) tell(conversationId, other, "offline", sink);
    },

    async left(conversationId, userId) {
      const users = here.get(conversationId);
      const count = users?.get(userId) ?? 0;
      if (users === undefined || count === 0) return;
      if (count > 1) return void users.set(userId, count - 1);
      users.delete(userId);
      if (users.size === 0) here.delete(conversationId);
      const byMemory: Change = [[], users.size > crowd ? [] : [userId], []];
      const [, went] = await change(conversationId, "gone", [userId]).catch(() => byMemory);
      for (const other of went) tell(conversationId, other, "offline");
    },

    close: () => closing.abort(),
  };
}

/** Tells Redis who is here or gone, and answers what that changed; rejects when Redis is away or too much is asked. */
function openChanges(redis: Redis, instanceId: string) {
  let changesUnderWay = 0;
  return async (conversationId: string, what: "here" | "gone", users: readonly string[]): Promise<Change> => {
    if (changesUnderWay >= changesAtOnceMax) throw new OperatingError("too_many_changes");
    changesUnderWay += 1;
    try {
      const args = [instanceId, lifetimeMs, what, toldOnlineMax, crowd, ...users];
      return (await redis.evaluate(script, [`presence:${conversationId}`], args)) as Change;
    } finally {
      changesUnderWay -= 1;
    }
  };
}

function presenceFrame(conversation_id: string, user_id: string, status: "online" | "offline"): string {
  return encodeFrame({ type: "presence", conversation_id, user_id, status });
}
