// One WebSocket: frames in, answers and events out. Frames of one conversation are dealt with in the order of their
// arrival, those of different ones side by side. What is under way and what is buffered has a bound.
import { type Caller, requireScope } from "../identity/caller.ts";
import { expiredToken, revokedToken } from "../identity/tokens.ts";
import { Problem } from "../model/errors.ts";
import type { Reader } from "./backlog.ts";
import { type Connection, isExpired } from "./connections.ts";
import { type ClientFrame, decodeFrame, encodeFrame, errorFrame, type FrameContext } from "./frames.ts";
import { SocketSubscription } from "./socket-subscription.ts";
import type { StreamDependencies } from "./websocket.ts";

/** What is used of Bun's socket. */
export interface RawSocket {
  send(text: string): number;
  getBufferedAmount(): number;
  close(code: number, reason: string): void;
  terminate(): void;
}

type Frame<Type extends ClientFrame["type"]> = Extract<ClientFrame, { type: Type }>;

const subscriptionsMax = 1000;
const framesUnderWayMax = 256;
const badFramesMax = 20;
const badFramesWindowMs = 10_000;
/** History waits beyond this. */
const bufferedBytesHigh = 256 * 1024;
/** Beyond this the socket is closed with 1013, and its client resumes by number. */
const bufferedBytesMax = 1024 * 1024;
const closeTimeoutMs = 10_000;

/** A socket of one caller, from its upgrade to its close. */
export class Socket implements Connection, Reader {
  readonly caller: Caller;
  readonly isRequest = false;
  readonly #dependencies: StreamDependencies;
  readonly #subscriptions = new Map<string, SocketSubscription>();
  readonly #lanes = new Map<string, Promise<void>>();
  #raw: RawSocket | undefined;
  #forget: () => void = () => undefined;
  #isEnded = false;
  #framesUnderWay = 0;
  #badFrames = 0;
  #badFramesSince = 0;
  #drainWaiters: (() => void)[] = [];

  constructor(caller: Caller, dependencies: StreamDependencies) {
    this.caller = caller;
    this.#dependencies = dependencies;
  }

  /** The upgrade is done. */
  opened(raw: RawSocket): void {
    this.#raw = raw;
    try {
      this.#forget = this.#dependencies.connections.add(this);
    } catch {
      return this.#end(1013, "no room");
    }
    this.write(encodeFrame({ type: "hello", user_id: this.caller.userId }));
  }

  /** A frame came, text or binary. */
  received(data: string | Uint8Array): void {
    if (this.#isEnded) return;
    if (isExpired(this.caller)) return this.refuse(expiredToken());
    const context: FrameContext = {};
    let frame: ClientFrame;
    try {
      frame = decodeFrame(data, context);
      if (this.#framesUnderWay >= framesUnderWayMax) {
        throw new Problem(429, "too_many_frames", "Wait for answers before sending more.");
      }
      if (frame.type === "ping") this.write(encodeFrame({ type: "pong", ...context }));
      else this.#enqueue(frame, context, this.#dependencies.connections.holdFrame(data.length));
    } catch (error) {
      this.#answerError(error, context);
    }
  }

  /** Bun wrote out some of what was buffered. */
  wasDrained(): void {
    const bufferedBytes = this.#raw?.getBufferedAmount() ?? 0;
    this.#dependencies.connections.backlog.note(this, bufferedBytes);
    if (!this.#isEnded && bufferedBytes > bufferedBytesHigh) return;
    const waiters = this.#drainWaiters;
    this.#drainWaiters = [];
    for (const resolve of waiters) resolve();
  }

  /** The connection is gone. */
  closed(): void {
    this.#isEnded = true;
    this.#raw = undefined;
    this.#release();
  }

  refuse(problem: Problem): void {
    if (this.#isEnded) return;
    this.write(errorFrame(problem, {}).text);
    this.#end(1008, problem.code);
  }

  drain(): void {
    this.#end(1012, "restarting");
  }

  get isEnded(): boolean {
    return this.#isEnded;
  }

  overrun(): void {
    this.#end(1013, "too slow; resume by number");
  }

  cutOff(): void {
    this.#raw?.terminate();
  }

  /** Sends a frame; a socket that does not read is closed instead of buffered for. `full`: history is to wait. */
  write(text: string): "sent" | "full" {
    if (this.#isEnded || this.#raw === undefined || this.#raw.send(text) > 0) return "sent";
    const bufferedBytes = this.#raw.getBufferedAmount();
    if (bufferedBytes > bufferedBytesMax) this.overrun();
    this.#dependencies.connections.backlog.note(this, bufferedBytes);
    return bufferedBytes > bufferedBytesHigh ? "full" : "sent";
  }

  /** Resolves when history may go on, or the socket has ended. */
  drained(): Promise<void> {
    if (this.#isEnded || (this.#raw?.getBufferedAmount() ?? 0) <= bufferedBytesHigh) return Promise.resolve();
    return new Promise((resolve) => this.#drainWaiters.push(resolve));
  }

  /** Forgets a subscription that is over. */
  dropSubscription(subscription: SocketSubscription): void {
    if (this.#subscriptions.get(subscription.conversationId) === subscription) {
      this.#subscriptions.delete(subscription.conversationId);
    }
    subscription.close();
  }

  #enqueue(
    frame: Exclude<ClientFrame, { type: "ping" }>,
    context: FrameContext,
    releaseFrame: () => void,
  ): void {
    this.#framesUnderWay += 1;
    const before = this.#lanes.get(frame.conversation_id);
    const done = (async () => {
      await before;
      if (this.#isEnded) return;
      await this.#handle(frame, context).catch((error: unknown) => this.#answerError(error, context));
    })();
    this.#lanes.set(frame.conversation_id, done);
    void done.finally(() => {
      releaseFrame();
      this.#framesUnderWay -= 1;
      if (this.#lanes.get(frame.conversation_id) === done) this.#lanes.delete(frame.conversation_id);
    });
  }

  #handle(frame: Exclude<ClientFrame, { type: "ping" }>, context: FrameContext): Promise<void> {
    switch (frame.type) {
      case "subscribe":
        return this.#subscribe(frame, context);
      case "unsubscribe":
        return this.#unsubscribe(frame, context);
      case "send":
        return this.#send(frame);
      case "receipt":
        return this.#moveCursors(frame, context);
      case "typing":
        return this.#typing(frame);
    }
  }

  async #subscribe(frame: Frame<"subscribe">, context: FrameContext): Promise<void> {
    requireScope(this.caller, "messages:read");
    const { conversation_id: conversationId, after } = frame;
    if (this.#subscriptions.has(conversationId)) {
      throw new Problem(409, "already_subscribed", "This socket is subscribed to the conversation.");
    }
    if (this.#subscriptions.size >= subscriptionsMax) {
      throw new Problem(
        429,
        "too_many_subscriptions",
        `A socket has at most ${subscriptionsMax} subscriptions.`,
      );
    }
    const subscription = new SocketSubscription(this, this.#dependencies.presence, conversationId, context);
    this.#subscriptions.set(conversationId, subscription);
    try {
      if (await this.#dependencies.isRevoked(this.caller)) throw revokedToken();
      const { userId } = this.caller;
      subscription.joined(
        await this.#dependencies.hub.subscribe({ conversationId, userId, after, sink: subscription }),
      );
    } catch (error) {
      this.dropSubscription(subscription);
      throw error;
    }
  }

  async #unsubscribe({ conversation_id }: Frame<"unsubscribe">, context: FrameContext): Promise<void> {
    const subscription = this.#subscriptions.get(conversation_id);
    if (subscription !== undefined) this.dropSubscription(subscription);
    this.write(encodeFrame({ type: "unsubscribed", ...context, conversation_id, code: "requested" }));
  }

  async #send({ ref, message_id, conversation_id, payload }: Frame<"send">): Promise<void> {
    requireScope(this.caller, "messages:write");
    const body = { message_id, conversation_id, payload };
    const { sequence_number, replay } = await this.#dependencies.send(this.caller, body);
    this.write(encodeFrame({ type: "ack", ref, sequence_number, replay }));
  }

  async #moveCursors(frame: Frame<"receipt">, context: FrameContext): Promise<void> {
    requireScope(this.caller, "messages:read");
    if (await this.#dependencies.isRevoked(this.caller)) throw revokedToken();
    const { type: _type, ref: _ref, conversation_id, ...body } = frame;
    const { delivered, read } = await this.#dependencies.moveCursors(this.caller, conversation_id, body);
    const receipt = {
      type: "receipt",
      conversation_id,
      user_id: this.caller.userId,
      delivered,
      read,
    } as const;
    this.write(encodeFrame({ ...receipt, ...context, conversation_id }));
    const signal = { conversation_id, frame: encodeFrame(receipt) };
    this.#dependencies.hub.signal(signal, this.#subscriptions.get(conversation_id));
  }

  async #typing({ conversation_id }: Frame<"typing">): Promise<void> {
    requireScope(this.caller, "messages:write");
    const subscription = this.#subscriptions.get(conversation_id);
    if (subscription === undefined) {
      throw new Problem(
        403,
        "not_subscribed",
        "Typing is for conversations that this socket is subscribed to.",
      );
    }
    if (!subscription.mayTellTyping(performance.now())) return;
    const typing = encodeFrame({ type: "typing", conversation_id, user_id: this.caller.userId });
    this.#dependencies.hub.signal({ conversation_id, frame: typing }, subscription);
  }

  #answerError(error: unknown, context: FrameContext): void {
    const { problem, text } = errorFrame(error, context);
    this.write(text);
    if (problem.status === 401) this.#end(1008, problem.code);
    else if (problem.status === 400) this.#countBadFrame();
  }

  #countBadFrame(): void {
    const now = performance.now();
    if (now - this.#badFramesSince > badFramesWindowMs) {
      this.#badFramesSince = now;
      this.#badFrames = 0;
    }
    this.#badFrames += 1;
    if (this.#badFrames > badFramesMax) this.#end(1008, "too many bad frames");
  }

  // A peer that reads nothing never sees the close: it is cut off after a while.
  #end(code: number, reason: string): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    this.#dependencies.connections.backlog.ended(this);
    this.#release();
    this.#raw?.close(code, reason);
    setTimeout(() => this.#raw?.terminate(), closeTimeoutMs).unref();
  }

  #release(): void {
    for (const subscription of this.#subscriptions.values()) subscription.close();
    this.#subscriptions.clear();
    this.#forget();
    this.wasDrained();
  }
}
