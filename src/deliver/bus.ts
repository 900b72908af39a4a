// Carries messages between the instances over Redis pub/sub, one channel per shard and one for all. An instance
// listens to a shard only while it has a room there. Everything may be lost on the way: rooms cure that by number.
import { conversationKey, partitionOf } from "../platform/murmur2.ts";
import type { ChannelMessage, Redis } from "../platform/redis.ts";
import type { LiveEvent } from "./live.ts";
import { type Announcement, encode, type WireMessage } from "./wire.ts";

/** The channel that every instance listens to. */
export const allChannel = "live:all";

/** The channel of a conversation: the one of its shard. */
export function channelOf(conversationId: string, shards: number): string {
  return `live:${partitionOf(conversationKey(conversationId), shards)}`;
}

/** Sends a commit's events, one message per shard; false when Redis took none. */
export function publishEvents(
  redis: Redis,
  from: string,
  shards: number,
  events: readonly LiveEvent[],
): boolean {
  const byChannel = Map.groupBy(events, (event) => channelOf(event.conversation_id, shards));
  const messages: ChannelMessage[] = [];
  for (const [channel, ofChannel] of byChannel) {
    messages.push({ channel, text: encode({ kind: "events", from, events: ofChannel }) });
  }
  return redis.publish(messages);
}

/** Tells the instances that have a room of these conversations where they stand, one message per shard. */
export function publishAnnouncements(
  redis: Redis,
  shards: number,
  announcements: readonly Announcement[],
): boolean {
  const byChannel = Map.groupBy(announcements, ({ conversation_id }) => channelOf(conversation_id, shards));
  return redis.publish(
    [...byChannel].map(([channel, ofChannel]) => ({
      channel,
      text: encode({ kind: "announcements", announcements: ofChannel }),
    })),
  );
}

/** Sends one message to the instances that listen to a channel. */
export function publishMessage(redis: Redis, channel: string, message: WireMessage): boolean {
  return redis.publish([{ channel, text: encode(message) }]);
}
