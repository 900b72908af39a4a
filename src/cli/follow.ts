// A user's events over the WebSocket, each once and in the order of numbers within its conversation. Whatever
// breaks the connection, a new one takes up after the last number that was seen of each conversation.
import { OperatingError } from "../model/errors.ts";
import type { EventKind } from "../model/event.ts";
import { type Api, type Caller, CallFailure } from "./api.ts";
import { flushed, isReaderBehind, say } from "./output.ts";

/** An event as every way out shows it. */
export interface StreamEvent {
  event: EventKind;
  conversation_id: string;
  sequence_number: number;
  message_id: string;
  sender_id: string;
  payload?: { type?: string; text?: string; data?: unknown; user_id?: string };
  target_sequence_number?: number;
  created_at: string;
}

/** Whose events, and of which conversation; all of the user's, also those that begin later, when it is left out. */
export interface FollowOptions {
  api: Api;
  userId: string;
  conversation: string | undefined;
  /** With a conversation: begin after this number instead of now. */
  after: number | undefined;
  signal: AbortSignal;
  onEvent(event: StreamEvent): void;
}

type Frame =
  | { type: "hello" | "pong" | "typing" | "presence" | "receipt" | "ack" }
  | { type: "subscribed"; conversation_id: string; last_sequence_number: number }
  | { type: "unsubscribed"; conversation_id: string; code: string }
  | ({ type: "message" } & StreamEvent)
  | { type: "error"; status: number; code: string; detail: string; conversation_id?: string };

/** Last numbers by conversation; undefined until the server has told where the present is. */
type Seen = Map<string, number | undefined>;

interface Listed {
  items: { id: string; cursors: { delivered: number } }[];
  next_cursor: string | null;
}

const conversationsMax = 1_000;
const subscriptionsUnderWayMax = 64;
const discoverIntervalMs = 5_000;
const pingIntervalMs = 15_000;
const silenceMaxMs = 40_000;
const backOffMaxMs = 5_000;

/**
 * Follows until `signal` aborts. Throws CallFailure when the first connection can not be made, and OperatingError
 * when the one conversation is not the user's (any more).
 */
export async function followEvents(options: FollowOptions): Promise<void> {
  const seen: Seen = new Map();
  if (options.conversation !== undefined) seen.set(options.conversation, options.after);
  let failures = 0;
  let hasConnected = false;
  while (!options.signal.aborted) {
    const caller = options.api.asUser(options.userId);
    try {
      if (options.conversation === undefined) await discover(caller, seen, hasConnected);
      const connection = new FollowConnection(options, caller, seen);
      await connection.run(await caller.accessToken(), () => {
        if (!hasConnected) say(`following ${options.userId} at ${options.api.url}`);
        hasConnected = true;
        failures = 0;
      });
    } catch (error) {
      const mayPass =
        error instanceof CallFailure ? error.isPassing : (error as OperatingError).code === "connection_lost";
      if (!hasConnected || !mayPass) throw error;
      if (failures === 0) say(`${(error as Error).message}; connecting again`);
      await Bun.sleep(Math.min(200 * 2 ** failures, backOffMaxMs));
      failures += 1;
    }
    await flushed();
  }
}

/** Notes conversations that are not known yet. One that is found later begins where the user has got to in it. */
async function discover(caller: Caller, seen: Seen, isLater: boolean): Promise<string[]> {
  const found: string[] = [];
  let cursor: string | null = null;
  do {
    const query: string = cursor === null ? "" : `&cursor=${encodeURIComponent(cursor)}`;
    const page: Listed = await caller.call<Listed>("GET", `/v1/conversations?limit=100${query}`);
    for (const { id, cursors } of page.items) {
      if (seen.has(id) || seen.size >= conversationsMax) continue;
      seen.set(id, isLater ? cursors.delivered : undefined);
      found.push(id);
    }
    // What is new has the latest activity: later on the first page is enough.
    cursor = isLater ? null : page.next_cursor;
  } while (cursor !== null && seen.size < conversationsMax);
  return found;
}

/** One connection, until it ends. */
class FollowConnection {
  readonly #options: FollowOptions;
  readonly #caller: Caller;
  readonly #seen: Seen;
  readonly #waiting: string[];
  readonly #underWay = new Set<string>();
  readonly #ended = Promise.withResolvers<void>();
  #isEnded = false;
  #heardAtMs = Date.now();
  /** Called when all conversations that were known at the start are subscribed to. */
  #onFollowing: () => void = () => undefined;
  #socket: WebSocket | undefined;

  constructor(options: FollowOptions, caller: Caller, seen: Seen) {
    this.#options = options;
    this.#caller = caller;
    this.#seen = seen;
    this.#waiting = [...seen.keys()];
  }

  /** Resolves when the signal aborts; rejects with why it ended, `connection_lost` when a new one may do better. */
  async run(accessToken: string, onFollowing: () => void): Promise<void> {
    this.#onFollowing = onFollowing;
    const url = `${this.#options.api.url.replace(/^http/, "ws")}/v1/stream`;
    const socket = new WebSocket(url, { headers: { authorization: `Bearer ${accessToken}` } });
    this.#socket = socket;
    const stop = () => this.#ended.resolve();
    this.#options.signal.addEventListener("abort", stop);
    socket.addEventListener("close", ({ code, reason }) =>
      this.#lose(`the connection was closed (${code} ${reason})`),
    );
    socket.addEventListener("error", () => this.#lose(`no connection to ${url}`));
    socket.addEventListener("message", ({ data }) => {
      this.#heardAtMs = Date.now();
      const frame = JSON.parse(String(data)) as Frame;
      if (!this.#isEnded) this.#handle(frame);
    });
    const ping = setInterval(() => this.#ping(), pingIntervalMs);
    const look = setInterval(() => void this.#lookForNew(), discoverIntervalMs);
    try {
      await this.#ended.promise;
    } finally {
      this.#isEnded = true;
      clearInterval(ping);
      clearInterval(look);
      this.#options.signal.removeEventListener("abort", stop);
      socket.close();
    }
  }

  #handle(frame: Frame): void {
    switch (frame.type) {
      case "hello":
        return this.#subscribeNext();
      case "subscribed":
        this.#answered(frame.conversation_id);
        if (this.#seen.get(frame.conversation_id) === undefined) {
          this.#seen.set(frame.conversation_id, frame.last_sequence_number);
        }
        return;
      case "message":
        return this.#deliver(frame);
      case "unsubscribed":
        if (frame.code !== "member_removed") return this.#lose(`the server could not go on (${frame.code})`);
        return this.#drop(frame.conversation_id, "the user is no longer a member");
      case "error":
        return this.#refused(frame);
      case "pong":
      case "ack":
      case "receipt":
      case "typing":
      case "presence":
        return;
    }
  }

  #deliver({ type: _type, ...event }: Extract<Frame, { type: "message" }>): void {
    const last = this.#seen.get(event.conversation_id) ?? 0;
    if (event.sequence_number <= last) return;
    this.#seen.set(event.conversation_id, event.sequence_number);
    this.#options.onEvent(event);
    if (this.#options.signal.aborted) this.#isEnded = true;
    // Nothing is piled up for whoever reads slowly: it is asked for again when the output has drained.
    else if (isReaderBehind()) this.#lose("the output is not read fast enough");
  }

  #refused({ status, code, detail, conversation_id }: Extract<Frame, { type: "error" }>): void {
    if (conversation_id === undefined || status >= 429)
      return this.#lose(`the server refused: ${detail} (${code})`);
    this.#answered(conversation_id);
    this.#drop(conversation_id, `${detail} (${code})`);
  }

  /** Goes on without a conversation, if there are others to follow. */
  #drop(conversationId: string, reason: string): void {
    this.#seen.delete(conversationId);
    const message = `conversation ${conversationId}: ${reason}`;
    if (this.#options.conversation === undefined) say(message);
    else this.#end(new OperatingError("not_followed", { message }));
  }

  #answered(conversationId: string): void {
    this.#underWay.delete(conversationId);
    this.#subscribeNext();
  }

  // The server answers so many frames at a time, and refuses more.
  #subscribeNext(): void {
    while (this.#underWay.size < subscriptionsUnderWayMax) {
      const conversationId = this.#waiting.shift();
      if (conversationId === undefined) break;
      this.#underWay.add(conversationId);
      const after = this.#seen.get(conversationId);
      this.#socket?.send(JSON.stringify({ type: "subscribe", conversation_id: conversationId, after }));
    }
    if (this.#underWay.size > 0) return;
    this.#onFollowing();
    this.#onFollowing = () => undefined;
  }

  async #lookForNew(): Promise<void> {
    if (this.#options.conversation !== undefined) return;
    try {
      this.#waiting.push(...(await discover(this.#caller, this.#seen, true)));
      if (!this.#isEnded) this.#subscribeNext();
    } catch (error) {
      this.#end(error);
    }
  }

  #ping(): void {
    if (Date.now() - this.#heardAtMs > silenceMaxMs) this.#lose("the server has fallen silent");
    else if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify({ type: "ping" }));
  }

  #lose(message: string): void {
    this.#end(new OperatingError("connection_lost", { message }));
  }

  #end(reason: unknown): void {
    this.#isEnded = true;
    this.#ended.reject(reason);
  }
}
