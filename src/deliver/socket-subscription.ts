// One conversation on one socket: its events and temporary states become frames there, until either ends.
import type { Caller } from "../identity/caller.ts";
import { encodeFrame, type FrameContext, messageFrame } from "./frames.ts";
import type { Subscription } from "./hub.ts";
import type { LiveEvent } from "./live.ts";
import type { Presence } from "./presence.ts";
import type { Sink } from "./room.ts";

/** What a subscription uses of its socket. */
interface Outlet {
  readonly caller: Caller;
  write(text: string): "sent" | "full";
  drained(): Promise<void>;
  dropSubscription(subscription: SocketSubscription): void;
}

const typingIntervalMs = 1000;

/** A conversation on a socket. */
export class SocketSubscription implements Sink {
  readonly conversationId: string;
  readonly #socket: Outlet;
  readonly #presence: Presence;
  readonly #context: FrameContext;
  #subscription: Subscription | undefined;
  #isClosed = false;
  #typingToldAt = Number.NEGATIVE_INFINITY;

  constructor(socket: Outlet, presence: Presence, conversationId: string, context: FrameContext) {
    this.#socket = socket;
    this.#presence = presence;
    this.conversationId = conversationId;
    this.#context = context;
  }

  joined(subscription: Subscription): void {
    this.#subscription = subscription;
    if (this.#isClosed) subscription.close();
    else void this.#presence.entered(this.conversationId, this.#socket.caller.userId, this);
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    if (this.#subscription === undefined) return;
    this.#subscription.close();
    void this.#presence.left(this.conversationId, this.#socket.caller.userId);
  }

  mayTellTyping(now: number): boolean {
    if (now - this.#typingToldAt < typingIntervalMs) return false;
    this.#typingToldAt = now;
    return true;
  }

  subscribed(last_sequence_number: number): void {
    const { conversationId: conversation_id } = this;
    this.#socket.write(
      encodeFrame({ type: "subscribed", ...this.#context, conversation_id, last_sequence_number }),
    );
  }

  send(event: LiveEvent): "sent" | "full" {
    return this.#socket.write(messageFrame(event));
  }

  signal(frame: string): void {
    this.#socket.write(frame);
  }

  drained(): Promise<void> {
    return this.#socket.drained();
  }

  removed(): void {
    this.#over("member_removed");
  }

  interrupted(): void {
    this.#over("unavailable");
  }

  #over(code: "member_removed" | "unavailable"): void {
    this.#socket.dropSubscription(this);
    this.#socket.write(encodeFrame({ type: "unsubscribed", conversation_id: this.conversationId, code }));
  }
}
