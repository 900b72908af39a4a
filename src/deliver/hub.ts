// Live delivery of one instance. Events come in straight after a local commit, or over Redis from another instance;
// they go to the rooms of their conversations and from there to sockets and event streams. Whatever Redis loses is
// found by number: rooms read gaps from Postgres, and the newest numbers are polled, often while Redis is away.
import { bulkhead } from "cockatiel";
import findAccess from "../../sql/conversations/access.sql" with { type: "text" };
import eventsAfter from "../../sql/deliver/events-after.sql" with { type: "text" };
import { invalidInput, noConversation, notMember, unavailable } from "../model/errors.ts";
import type { EventRow } from "../model/event.ts";
import type { Log } from "../platform/log.ts";
import type { Postgres } from "../platform/postgres.ts";
import type { Redis, RedisState } from "../platform/redis.ts";
import { type Audience, openAudience } from "./audience.ts";
import { allChannel, channelOf, publishEvents, publishMessage } from "./bus.ts";
import { type LiveEvent, liveEvent } from "./live.ts";
import { openNewestPoll } from "./newest.ts";
import type { Sink, Subscriber } from "./room.ts";
import { Rooms } from "./rooms.ts";
import { decode, type Signal } from "./wire.ts";

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
  /** Ends it; the sink gets nothing more. To be called also after the sink was told `removed` or `interrupted`. */
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
  readonly instanceId: string;
  /** Events of a commit, straight after it: to the rooms here at once, then to the other instances. Never waits. */
  publish(events: readonly LiveEvent[]): void;
  /**
   * Joins a conversation; `sink.subscribed` was called when this resolves. Rejects with Problem 404 for no such
   * conversation, 403 for no member, 400 when `after` is beyond the last number.
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

/** History is read by few at a time, so that a herd of reconnecting sockets does not stand before ingest. */
const readsAtOnceMax = 6;
const readsWaitingMax = 20_000;
/** Of all sockets and event streams here; each is a place in a room, about 2 KiB. */
const subscriptionsMax = 250_000;

/** So long after it was said, a hello has been heard, or Redis has told the number of listeners. */
const helloHeardMs = 500;

/** Opens the hub: it listens at once, and polls until it is closed. */
export function openHub(settings: HubSettings): Hub {
  const { postgres, redis, log, instanceId, shards, pollIntervalMs } = settings;
  const reads = bulkhead(readsAtOnceMax, readsWaitingMax);
  const rooms = new Rooms(redis, shards, (conversationId, sequenceNumber) =>
    reads.execute(() => readEvents(postgres, conversationId, sequenceNumber)),
  );
  const newest = openNewestPoll({ postgres, redis, rooms, log, pollIntervalMs });
  const audience = openAudience(redis);
  const heard = hearOthers(redis, rooms, instanceId, newest.ask, audience);

  const close = async () => {
    audience.close();
    newest.close();
    rooms.close();
    redis.unlisten(allChannel);
  };

  return {
    instanceId,
    publish(events) {
      for (const event of events) rooms.find(event.conversation_id)?.offer(event);
      if (!audience.isAlone()) publishEvents(redis, instanceId, shards, events);
    },

    async subscribe({ conversationId, userId, after, sink }) {
      if (rooms.holders >= subscriptionsMax)
        throw unavailable("too_many_subscriptions", "This instance has no room for another subscription.");
      // The room comes first: what is committed while we ask is held there until the answer opens it.
      const held = rooms.hold(conversationId);
      try {
        const last = await checkStanding(postgres, conversationId, userId, after);
        const subscriber: Subscriber = { userId, sink, verifiedAt: last, position: after ?? last };
        held.room.open(last);
        held.listen();
        held.room.join(subscriber);
        return {
          close() {
            held.room.leave(subscriber);
            held.release();
          },
        };
      } catch (error) {
        held.release();
        throw error;
      }
    },

    signal(signal, except) {
      rooms.find(signal.conversation_id)?.signal(signal.frame, except);
      publishMessage(redis, channelOf(signal.conversation_id, shards), {
        kind: "signal",
        from: instanceId,
        signal,
      });
    },

    revoke(tokenIds) {
      for (const tell of heard.revokedListeners) tell(tokenIds);
      publishMessage(redis, allChannel, { kind: "revoked", from: instanceId, tokenIds: [...tokenIds] });
    },
    onRevoked: (listener) => void heard.revokedListeners.push(listener),
    onEpoch: (listener) => void heard.epochListeners.push(listener),
    state: () => redis.state(),
    close,
    [Symbol.asyncDispose]: close,
  };
}

/** Listens to what other instances say, and passes it to whom it is for. */
function hearOthers(
  redis: Redis,
  rooms: Rooms,
  instanceId: string,
  askNewest: (conversationIds: readonly string[]) => Promise<void>,
  audience: Audience,
) {
  const revokedListeners: ((tokenIds: readonly string[]) => void)[] = [];
  const epochListeners: (() => void)[] = [];

  const take = (text: string) => {
    const message = decode(text, instanceId, (conversationId) => rooms.has(conversationId));
    switch (message?.kind) {
      case "events":
        for (const event of message.events) rooms.find(event.conversation_id)?.offer(event);
        break;
      case "signal":
        rooms.find(message.signal.conversation_id)?.signal(message.signal.frame, undefined);
        break;
      case "announcements":
        for (const newest of message.announcements)
          rooms.find(newest.conversation_id)?.announce(newest.sequence_number);
        break;
      case "revoked":
        for (const tell of revokedListeners) tell(message.tokenIds);
        break;
      case "hello":
        audience.hasCome();
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
    message: (_channel, text) => take(text),
    // What was said before this moment was not heard: ask where the rooms of these channels stand. And once more
    // when whoever believed to be alone must have heard that we are here.
    listening: (channels) => {
      if (channels.includes(allChannel))
        publishMessage(redis, allChannel, { kind: "hello", from: instanceId });
      const ask = () => void askNewest(rooms.conversationsOf(channels));
      ask();
      setTimeout(ask, helloHeardMs);
    },
  });
  redis.listen(allChannel);
  return { revokedListeners, epochListeners };
}

async function readEvents(
  postgres: Postgres,
  conversationId: string,
  sequenceNumber: number,
): Promise<LiveEvent[]> {
  const rows = await postgres.query<EventRow>(eventsAfter, [conversationId, sequenceNumber]);
  return rows.map(liveEvent);
}

/** The conversation's last number, for a member who asks for no more than there is. */
async function checkStanding(
  postgres: Postgres,
  conversationId: string,
  userId: string,
  after: number | undefined,
): Promise<number> {
  const [standing] = await postgres.query<{ last_sequence_number: number; is_member: boolean }>(findAccess, [
    conversationId,
    userId,
  ]);
  if (standing === undefined) throw noConversation();
  if (!standing.is_member) throw notMember();
  if (after !== undefined && after > standing.last_sequence_number) {
    throw invalidInput("/after", "is beyond the conversation's last number");
  }
  return standing.last_sequence_number;
}
