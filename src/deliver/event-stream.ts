// GET /v1/conversations/{id}/events: a conversation's events as Server-Sent Events. A client that comes again with
// the Last-Event-ID of what it got misses nothing and gets nothing twice.
// https://html.spec.whatwg.org/multipage/server-sent-events.html
import { Elysia } from "elysia";
import { describeCall } from "../edge/describe.ts";
import { type Caller, requireScope } from "../identity/caller.ts";
import { revokedToken } from "../identity/tokens.ts";
import { invalidInput } from "../model/errors.ts";
import { conversationParams, eventStreamHeaders, eventStreamQuery, integerMax } from "../model/schemas.ts";
import type { Backlog, Reader } from "./backlog.ts";
import type { Connection } from "./connections.ts";
import type { Subscription } from "./hub.ts";
import type { LiveEvent } from "./live.ts";
import type { Sink } from "./room.ts";
import type { StreamDependencies } from "./websocket.ts";

const retryMs = 1000;
const keepAliveIntervalMs = 15_000;
/** History waits beyond this. */
const bufferedBytesHigh = 256 * 1024;
/** A stream with more than this unread is ended; its client resumes by number. */
const bufferedBytesMax = 1024 * 1024;
const encoder = new TextEncoder();

const details = describeCall(
  "conversations",
  "Streams what happens in a conversation",
  { 200: "text/event-stream" },
  [400, 403, 404],
);

/** The route of event streams. */
export function eventStreamRoutes(dependencies: StreamDependencies) {
  return new Elysia({ name: "event-streams" }).get(
    "/v1/conversations/:conversation_id/events",
    async ({ request, server, params, query }) => {
      const caller = await dependencies.authenticate(request);
      requireScope(caller, "messages:read");
      if (await dependencies.isRevoked(caller)) throw revokedToken();
      const after = lastEventId(request) ?? (query.after === undefined ? undefined : Number(query.after));
      const stream = new EventStream(caller, dependencies.connections.backlog);
      const forget = dependencies.connections.add(stream);
      try {
        const conversationId = params.conversation_id.toLowerCase();
        const { userId } = caller;
        stream.opened(
          await dependencies.hub.subscribe({ conversationId, userId, after, sink: stream }),
          forget,
        );
      } catch (error) {
        forget();
        throw error;
      }
      server?.timeout(request, 0);
      return new Response(stream.body, {
        headers: {
          "content-type": "text/event-stream; charset=utf-8",
          "cache-control": "no-store",
          "x-accel-buffering": "no",
        },
      });
    },
    { params: conversationParams, query: eventStreamQuery, headers: eventStreamHeaders, detail: details },
  );
}

// A browser comes again with the URL that it was given and the id of what it last got: the id is the newer of the two.
function lastEventId(request: Request): number | undefined {
  const text = request.headers.get("last-event-id");
  if (text === null || text === "") return undefined;
  const number = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
  if (!(number <= integerMax)) throw invalidInput("/last-event-id", "must be a sequence number");
  return number;
}

/** One event stream of one caller, from its start to its end. */
class EventStream implements Connection, Reader, Sink {
  readonly caller: Caller;
  readonly isRequest = true;
  readonly body: ReadableStream<Uint8Array>;
  readonly #backlog: Backlog;
  #keepAlive: Timer | undefined;
  #controller: ReadableStreamDefaultController<Uint8Array> | undefined;
  #subscription: Subscription | undefined;
  #forget: () => void = () => undefined;
  #isEnded = false;
  #drainWaiter: (() => void) | undefined;

  constructor(caller: Caller, backlog: Backlog) {
    this.caller = caller;
    this.#backlog = backlog;
    this.body = new ReadableStream<Uint8Array>(
      {
        start: (controller) => {
          this.#controller = controller;
        },
        pull: () => this.#wasDrained(),
        cancel: () => this.#release(),
      },
      new ByteLengthQueuingStrategy({ highWaterMark: bufferedBytesHigh }),
    );
  }

  opened(subscription: Subscription, forget: () => void): void {
    this.#subscription = subscription;
    this.#forget = forget;
    if (this.#isEnded) return this.#release();
    // Not before: a stream that is refused is never ended.
    this.#keepAlive = setInterval(() => this.#write(": keep-alive\n\n"), keepAliveIntervalMs);
  }

  subscribed(): void {
    this.#write(`retry: ${retryMs}\n\n`);
  }

  send(event: LiveEvent): "sent" | "full" {
    // Line ends in JSON are only white space between its tokens.
    const json =
      event.json.includes("\n") || event.json.includes("\r")
        ? event.json.replace(/[\r\n]/g, " ")
        : event.json;
    this.#write(`id: ${event.sequence_number}\nevent: ${event.event}\ndata: ${json}\n\n`);
    return this.#room() > 0 ? "sent" : "full";
  }

  drained(): Promise<void> {
    if (this.#isEnded || this.#room() > 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.#drainWaiter = resolve;
    });
  }

  removed(): void {
    this.#end();
  }

  interrupted(): void {
    this.#end();
  }

  refuse(): void {
    this.#end();
  }

  drain(): void {
    this.#end();
  }

  get isEnded(): boolean {
    return this.#isEnded;
  }

  /** It would hold what is unread for as long as its reader likes: it is cut off. */
  overrun(): void {
    if (this.#isEnded) return;
    this.#controller?.error(new Error("the reader is too slow"));
    this.#release();
  }

  cutOff(): void {
    this.overrun();
  }

  #room(): number {
    return this.#controller?.desiredSize ?? 0;
  }

  #write(text: string): void {
    if (this.#isEnded) return;
    this.#controller?.enqueue(encoder.encode(text));
    if (this.#room() <= bufferedBytesHigh - bufferedBytesMax) this.overrun();
    else this.#noteUnread();
  }

  #noteUnread(): void {
    this.#backlog.note(this, this.#isEnded ? 0 : bufferedBytesHigh - this.#room());
  }

  #wasDrained(): void {
    this.#noteUnread();
    this.#drainWaiter?.();
    this.#drainWaiter = undefined;
  }

  #end(): void {
    if (this.#isEnded) return;
    this.#controller?.close();
    this.#release();
  }

  #release(): void {
    this.#isEnded = true;
    clearInterval(this.#keepAlive);
    this.#subscription?.close();
    this.#forget();
    this.#wasDrained();
  }
}
