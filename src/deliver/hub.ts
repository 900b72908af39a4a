// Live delivery of one instance. Events come in straight after a local commit, or over Redis from another instance;
// they go to the rooms of their conversations and from there to sockets and event streams. Whatever Redis loses is
// found by number: rooms read gaps from Postgres, and the newest numbers are polled, often while Redis is away.
import { bulkhead } from "cockatiel";
import type { EventRow } from "../model/event.ts";
import { invalidInput, Problem } from "../model/errors.ts";
import type { Log } from "../platform/log.ts";
import type { Postgres } from "../platform/postgres.ts";
import type { Redis, RedisState } from "../platform/redis.ts";
import { allChannel, channelOf, publishEvents, publishMessage } from "./bus.ts";
import { type LiveEvent, liveEvent } from "./live.ts";
import { queries } from "./queries.ts";
import { Room, type Sink, type Subscriber } from "./room.ts";
import { type Announcement, decode, type Signal } from "./wire.ts";

/** Who wants what, from where on. */
export interface SubscribeRequest {
  /** Lower-case UUID. */
  conversationId: string;
  userId: string;
  /** The last number that the subscriber has; undefined: it starts at what is newest. */
  after: number | undefined;
  sink: Sink;
}

/** A place in a room. */
export interface Subscription {
  /** Ends it; the sink gets nothing more. */
  close(): void;
}

/** What the hub needs. */
export interface HubSettings {
  postgres: Postgres;
  redis: Redis;
  log: Log;
  /** A UUID, different for each hub on one Redis. */
  instanceId: string;
  /** KAFKA_PARTITIONS: the shards of conversations. */
  shards: number;
  /** LIVE_POLL_MS. */
  pollIntervalMs: number;
}

/** Live delivery of one instance. */
export interface Hub extends AsyncDisposable {
  /** Events of a commit, straight after it: to the rooms here at once, then to the other instances. Never waits. */
  publish(events: readonly LiveEvent[]): void;
  /**
   * Joins a conversation; `sink.subscribed` was called when this resolves. Rejects with Problem 404
   * `no_conversation`, 403 `not_member`, 400 when `after` is beyond the last number.
   */
  subscribe(request: SubscribeRequest): Promise<Subscription>;
  /** Passes a temporary state on to a conversation's subscribers everywhere, but not to its origin. */
  signal(signal: Signal, except?: Sink): void;
  /** Ends what these tokens opened, on every instance. */
  revoke(tokenIds: readonly string[]): void;
  onRevoked(listener: (tokenIds: readonly string[]) => void): void;
  /** Called when Redis came back empty: temporary states are to be put back. */
  onEpoch(listener: () => void): void;
  /** `degraded` while Redis is away: others' events come by polling. */
  state(): RedisState;
  close(): Promise<void>;
}

interface Entry {
  room: Room;
  channel: string;
  /** Subscribers, and subscriptions that are being checked. */
  holders: number;
  isListening: boolean;
}

const safetyPollIntervalMs = 5000;
const conversationsPerQueryMax = 1000;
/** History is read by few at a time, so that a herd of reconnecting sockets does not stand before ingest. */
const readsAtOnceMax = 6;
const readsWaitingMax = 100_000;

/** Opens the hub: it listens at once, and polls until it is closed. */
export function openHub(settings: HubSettings): Hub {
  const { postgres, redis, log, instanceId, shards } = settings;
  const entries = new Map<string, Entry>();
  const roomsByChannel = new Map<string, Set<string>>();
  const revokedListeners: ((tokenIds: readonly string[]) => void)[] = [];
  const epochListeners: (() => void)[] = [];
  const reads = bulkhead(readsAtOnceMax, readsWaitingMax);
  let isClosed = false;
  let lastPollAt = Date.now();
  let isPolling = false;

  const readAfter = (conversationId: string, sequenceNumber: number) =>
    reads.execute(async () => {
      const rows = await postgres.query<EventRow>(queries.eventsAfter, [conversationId, sequenceNumber]);
      return rows.map(liveEvent);
    });

  const hold = (conversationId: string): Entry => {
    let entry = entries.get(conversationId);
    if (entry === undefined) {
      const room = new Room({
        readAfter: (sequenceNumber) => readAfter(conversationId, sequenceNumber),
        wait: (milliseconds) => Bun.sleep(milliseconds),
      });
      entry = { room, channel: channelOf(conversationId, shards), holders: 0, isListening: false };
      entries.set(conversationId, entry);
    }
    entry.holders += 1;
    return entry;
  };

  const release = (conversationId: string, entry: Entry) => {
    entry.holders -= 1;
    if (entry.holders > 0) return;
    entry.room.close();
    entries.delete(conversationId);
    const rooms = roomsByChannel.get(entry.channel);
    if (!entry.isListening || rooms === undefined) return;
    rooms.delete(conversationId);
    if (rooms.size > 0) return;
    roomsByChannel.delete(entry.channel);
    redis.unlisten(entry.channel);
  };

  // Only for who may be there: a stranger's try never makes this instance listen.
  const listenFor = (conversationId: string, entry: Entry) => {
    if (entry.isListening) return;
    entry.isListening = true;
    const rooms = roomsByChannel.get(entry.channel) ?? new Set();
    if (rooms.size === 0) redis.listen(entry.channel);
    roomsByChannel.set(entry.channel, rooms.add(conversationId));
  };

  const announce = ({ conversation_id, sequence_number }: Announcement) =>
    entries.get(conversation_id)?.room.announce(sequence_number);

  const announceNewest = async (conversationIds: readonly string[]) => {
    for (let start = 0; start < conversationIds.length && !isClosed; start += conversationsPerQueryMax) {
      const chunk = conversationIds.slice(start, start + conversationsPerQueryMax);
      const rows = await postgres.query<{ conversation_id: string; last_sequence_number: number }>(
        queries.newestNumbers,
        [chunk],
      );
      for (const row of rows) announce({ ...row, sequence_number: row.last_sequence_number });
    }
  };

  const poll = async () => {
    const intervalMs = redis.state() === "up" ? safetyPollIntervalMs : settings.pollIntervalMs;
    if (isPolling || Date.now() - lastPollAt < intervalMs) return;
    isPolling = true;
    lastPollAt = Date.now();
    await announceNewest([...entries.keys()]).catch((error: unknown) => {
      log.debug({ err: error }, "newest numbers could not be read");
    });
    isPolling = false;
  };
  const timer = setInterval(() => void poll(), Math.min(settings.pollIntervalMs, 50));

  const hear = (text: string) => {
    const message = decode(text, instanceId, (conversationId) => entries.has(conversationId));
    switch (message?.kind) {
      case "events":
        for (const event of message.events) entries.get(event.conversation_id)?.room.offer(event);
        break;
      case "signal":
        entries.get(message.signal.conversation_id)?.room.signal(message.signal.frame, undefined);
        break;
      case "announcements":
        message.announcements.forEach(announce);
        break;
      case "revoked":
        for (const tell of revokedListeners) tell(message.tokenIds);
        break;
      case "epoch":
        for (const tell of epochListeners) tell();
        break;
      case undefined:
        break;
      default:
        message satisfies never;
    }
  };

  redis.hear({
    message: (_channel, text) => hear(text),
    // What was said before this moment was not heard: ask once where the rooms of these channels stand.
    listening(channels) {
      const missed = channels.flatMap((channel) => [...(roomsByChannel.get(channel) ?? [])]);
      announceNewest(missed).catch((error: unknown) => log.debug({ err: error }, "newest numbers could not be read"));
    },
  });
  redis.listen(allChannel);

  const close = async () => {
    isClosed = true;
    clearInterval(timer);
    for (const [conversationId, entry] of entries) {
      entry.holders = 1;
      release(conversationId, entry);
    }
    redis.unlisten(allChannel);
  };

  return {
    publish(events) {
      for (const event of events) entries.get(event.conversation_id)?.room.offer(event);
      publishEvents(redis, instanceId, shards, events);
    },

    async subscribe({ conversationId, userId, after, sink }) {
      // The room comes first: what is committed while we ask is held there until the answer opens it.
      const entry = hold(conversationId);
      let isHeld = true;
      const leave = () => {
        if (isHeld) release(conversationId, entry);
        isHeld = false;
      };
      try {
        const last = await checkStanding(postgres, conversationId, userId, after);
        const subscriber: Subscriber = { userId, sink, verifiedAt: last, position: after ?? last };
        entry.room.open(last);
        listenFor(conversationId, entry);
        entry.room.join(subscriber);
        return {
          close() {
            entry.room.leave(subscriber);
            leave();
          },
        };
      } catch (error) {
        leave();
        throw error;
      }
    },

    signal(signal, except) {
      entries.get(signal.conversation_id)?.room.signal(signal.frame, except);
      publishMessage(redis, channelOf(signal.conversation_id, shards), { kind: "signal", from: instanceId, signal });
    },

    revoke(tokenIds) {
      for (const tell of revokedListeners) tell(tokenIds);
      publishMessage(redis, allChannel, { kind: "revoked", tokenIds: [...tokenIds] });
    },
    onRevoked: (listener) => void revokedListeners.push(listener),
    onEpoch: (listener) => void epochListeners.push(listener),
    state: () => redis.state(),
    close,
    [Symbol.asyncDispose]: close,
  };
}

/** The conversation's last number, for a member who asks for no more than there is. */
async function checkStanding(
  postgres: Postgres,
  conversationId: string,
  userId: string,
  after: number | undefined,
): Promise<number> {
  const [row] = await postgres.query<{ last_sequence_number: number; is_member: boolean }>(queries.standing, [
    conversationId,
    userId,
  ]);
  if (row === undefined) throw new Problem(404, "no_conversation", "There is no such conversation.");
  if (!row.is_member) throw new Problem(403, "not_member", "The caller is not a member of the conversation.");
  if (after !== undefined && after > row.last_sequence_number) {
    throw invalidInput("/after", "is beyond the conversation's last number");
  }
  return row.last_sequence_number;
}
