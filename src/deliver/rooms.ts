// The rooms of this instance, by conversation. A room lives as long as somebody holds it; an instance listens to a
// shard's channel only while it has a room there whose subscriber may be in it.
import type { Redis } from "../platform/redis.ts";
import { channelOf } from "./bus.ts";
import type { LiveEvent } from "./live.ts";
import { Room } from "./room.ts";

interface Entry {
  readonly room: Room;
  readonly channel: string;
  /** Subscribers, and subscriptions that are being checked. */
  holders: number;
  isListening: boolean;
}

/** A room that stays while it is held. */
export interface HeldRoom {
  readonly room: Room;
  /** From now on other instances' events are wanted too: somebody may be in it. */
  listen(): void;
  /** Gives it back, once however often it is called; the last one ends the room. */
  release(): void;
}

/** All rooms of one instance. */
export class Rooms {
  readonly #redis: Redis;
  readonly #shards: number;
  readonly #readAfter: (conversationId: string, sequenceNumber: number) => Promise<LiveEvent[]>;
  readonly #entries = new Map<string, Entry>();
  readonly #listenedByChannel = new Map<string, Set<string>>();
  #holders = 0;

  constructor(
    redis: Redis,
    shards: number,
    readAfter: (conversationId: string, sequenceNumber: number) => Promise<LiveEvent[]>,
  ) {
    this.#redis = redis;
    this.#shards = shards;
    this.#readAfter = readAfter;
  }

  /** The room of a conversation, where there is one. */
  find(conversationId: string): Room | undefined {
    return this.#entries.get(conversationId)?.room;
  }

  has(conversationId: string): boolean {
    return this.#entries.has(conversationId);
  }

  conversationIds(): string[] {
    return [...this.#entries.keys()];
  }

  /** The conversations for whose sake these channels are listened to. */
  conversationsOf(channels: readonly string[]): string[] {
    return channels.flatMap((channel) => [...(this.#listenedByChannel.get(channel) ?? [])]);
  }

  /** How many hold a room, those of one room each. */
  get holders(): number {
    return this.#holders;
  }

  /** Finds or makes a room, and keeps it until it is released. */
  hold(conversationId: string): HeldRoom {
    const entry = this.#entries.get(conversationId) ?? this.#make(conversationId);
    entry.holders += 1;
    this.#holders += 1;
    let isHeld = true;
    return {
      room: entry.room,
      listen: () => this.#listen(conversationId, entry),
      release: () => {
        if (isHeld) this.#release(conversationId, entry);
        isHeld = false;
      },
    };
  }

  /** Ends all rooms. */
  close(): void {
    for (const { room } of this.#entries.values()) room.close();
    for (const channel of this.#listenedByChannel.keys()) this.#redis.unlisten(channel);
    this.#entries.clear();
    this.#listenedByChannel.clear();
  }

  #make(conversationId: string): Entry {
    const room = new Room({
      readAfter: (sequenceNumber) => this.#readAfter(conversationId, sequenceNumber),
      wait: (milliseconds) => Bun.sleep(milliseconds),
    });
    const entry = { room, channel: channelOf(conversationId, this.#shards), holders: 0, isListening: false };
    this.#entries.set(conversationId, entry);
    return entry;
  }

  #listen(conversationId: string, entry: Entry): void {
    if (entry.isListening) return;
    entry.isListening = true;
    const listened = this.#listenedByChannel.get(entry.channel);
    if (listened !== undefined) {
      listened.add(conversationId);
      return;
    }
    this.#listenedByChannel.set(entry.channel, new Set([conversationId]));
    this.#redis.listen(entry.channel);
  }

  #release(conversationId: string, entry: Entry): void {
    entry.holders -= 1;
    this.#holders -= 1;
    if (entry.holders > 0 || this.#entries.get(conversationId) !== entry) return;
    entry.room.close();
    this.#entries.delete(conversationId);
    const listened = this.#listenedByChannel.get(entry.channel);
    if (!entry.isListening || listened === undefined) return;
    listened.delete(conversationId);
    if (listened.size > 0) return;
    this.#listenedByChannel.delete(entry.channel);
    this.#redis.unlisten(entry.channel);
  }
}
