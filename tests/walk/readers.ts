// Clients that read live: they keep what they get, in the order in which they get it, and go on elsewhere from what
// they last saw. A reader judges nothing but the frames themselves; what it should have had is judged in the end.

import { readEventStream, type StreamedEvent } from "../support/event-stream.ts";

/** An event as it came. */
export interface ReceivedEvent {
  event: string;
  conversation_id: string;
  sequence_number: number;
  message_id: string;
}

/** What a reader has of one conversation. */
export interface Place {
  /** It wants what comes after this number; undefined until the server says where it stands. */
  after: number | undefined;
  events: ReceivedEvent[];
}

/** A socket or an event stream, over any number of connections. */
export interface Reader {
  name: string;
  places: Map<string, Place>;
  /** What must not have come, or not then. */
  faults: string[];
  /** Codes of closes that the reader did not ask for; event streams have none. */
  closeCodes: number[];
  /** Drops its connection and opens one at this node, from what it last saw. */
  moveTo(url: string): Promise<void>;
  close(): void;
}

/** What opens a reader. */
export interface ReaderOptions {
  name: string;
  url: string;
  token: string;
  /** Begins after this number; undefined: with what comes from now on. */
  after: number | undefined;
  /** Where it goes on after a close that it did not ask for; without it such a close is a fault. */
  resumeAt?: () => string;
}

const openMsMax = 10_000;

/** The last number that a reader has of a conversation. */
function lastSeen(place: Place): number | undefined {
  return place.events.at(-1)?.sequence_number ?? place.after;
}

/** Opens a socket and subscribes it; resolves when every subscription is confirmed. */
export async function openSocketReader(
  options: ReaderOptions & { conversationIds: string[] },
): Promise<Reader> {
  const { name, token, conversationIds } = options;
  const places = new Map<string, Place>(
    conversationIds.map((id) => [id, { after: options.after, events: [] }]),
  );
  const reader: Reader = { name, places, faults: [], closeCodes: [], moveTo, close };
  let current: WebSocket | undefined;

  function connect(url: string): Promise<void> {
    const socket = new WebSocket(`${url.replace(/^http/, "ws")}/v1/stream?access_token=${token}`);
    const unconfirmed = new Set(conversationIds);
    const confirmed = Promise.withResolvers<void>();
    current = socket;
    socket.addEventListener("message", ({ data }) => {
      if (socket !== current) return;
      take(socket, String(data), unconfirmed);
      if (unconfirmed.size === 0) confirmed.resolve();
    });
    socket.addEventListener("close", ({ code, reason }) => {
      if (socket !== current) return;
      reader.closeCodes.push(code);
      if (options.resumeAt === undefined) reader.faults.push(`closed with ${code} ${reason}`);
      else connect(options.resumeAt()).catch((error) => reader.faults.push(String(error)));
    });
    return withinOpenTime(confirmed.promise, `${name} was not subscribed at ${url}`);
  }

  function take(socket: WebSocket, text: string, unconfirmed: Set<string>) {
    const frame = JSON.parse(text);
    const place = places.get(frame.conversation_id);
    switch (frame.type) {
      case "hello":
        for (const [conversation_id, subscribed] of places) {
          socket.send(JSON.stringify({ type: "subscribe", conversation_id, after: lastSeen(subscribed) }));
        }
        break;
      case "subscribed":
        unconfirmed.delete(frame.conversation_id);
        if (place !== undefined) place.after ??= frame.last_sequence_number;
        break;
      case "message":
        if (unconfirmed.has(frame.conversation_id)) reader.faults.push(`before subscribed: ${text}`);
        place?.events.push(frame);
        break;
      case "presence":
        break;
      default:
        reader.faults.push(`unexpected frame: ${text}`);
    }
  }

  function moveTo(url: string): Promise<void> {
    close();
    return connect(url);
  }

  function close() {
    const left = current;
    current = undefined;
    left?.close();
  }

  await connect(options.url);
  return reader;
}

/** Opens an event stream of one conversation; resolves when the server has answered. */
export async function openStreamReader(options: ReaderOptions & { conversationId: string }): Promise<Reader> {
  const { name, token, conversationId } = options;
  const place: Place = { after: options.after, events: [] };
  const places = new Map([[conversationId, place]]);
  const reader: Reader = { name, places, faults: [], closeCodes: [], moveTo, close };
  let connection = new AbortController();

  async function connect(url: string): Promise<void> {
    const mine = new AbortController();
    connection = mine;
    const [last] = place.events.slice(-1);
    const query = last === undefined && place.after !== undefined ? `?after=${place.after}` : "";
    const answer = fetch(`${url}/v1/conversations/${conversationId}/events${query}`, {
      headers: {
        authorization: `Bearer ${token}`,
        ...(last === undefined ? {} : { "last-event-id": String(last.sequence_number) }),
      },
      signal: mine.signal,
      keepalive: false,
    });
    const response = await withinOpenTime(answer, `${name} was not answered at ${url}`);
    if (!response.ok || response.body === null) throw new Error(`${name} at ${url}: ${response.status}`);
    void keepReading(response.body, mine.signal);
  }

  async function keepReading(body: ReadableStream<Uint8Array>, over: AbortSignal) {
    const ending = await readEventStream(body, over, take).then(
      () => "ended",
      (error: unknown) => String(error),
    );
    if (over.aborted) return;
    if (options.resumeAt === undefined) reader.faults.push(ending);
    else await connect(options.resumeAt()).catch((error) => reader.faults.push(String(error)));
  }

  function take(event: StreamedEvent, fault: string | undefined) {
    if (fault !== undefined) reader.faults.push(fault);
    place.events.push(event as ReceivedEvent);
  }

  function moveTo(url: string): Promise<void> {
    close();
    return connect(url);
  }

  function close() {
    connection.abort();
  }

  await connect(options.url);
  return reader;
}

async function withinOpenTime<Value>(work: Promise<Value>, otherwise: string): Promise<Value> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error(`${otherwise} in ${openMsMax} ms`)), openMsMax);
  return await Promise.race([work, late.promise]).finally(() => clearTimeout(timer));
}
