// Clients that read live, over sockets and event streams: they note each event as it comes, with its time, and go on
// from what they last saw, at another instance when theirs is away.

import { readEventStream, type StreamedEvent } from "../support/event-stream.ts";
import { noteNumber, type Target, type World } from "./clients/world.ts";
import { type SeenEvent, seenDigest, type Track } from "./history.ts";

/** Reads until it is closed. */
export interface LiveReader {
  readonly name: string;
  tracks(): readonly Track[];
  reconnects(): number;
  /** Leaves its instance for another one. */
  move(): void;
  close(): void;
}

/** A socket reader takes conversations at any time. */
export interface SocketReader extends LiveReader {
  subscribe(conversationId: string, after: number): void;
}

const openMsMax = 4_000;
const pingEveryMs = 1_500;
/** A server that says nothing for so long is given up. */
const silentMsMax = 5_000;
const reopenMs = 250;

/** A new record of what a reader gets. */
function newTrack(
  world: World,
  reader: string,
  userId: string,
  conversationId: string,
  after: number,
): Track {
  const track: Track = {
    reader,
    userId,
    conversationId,
    after,
    numbers: [],
    digests: [],
    atMs: [],
    faults: [],
    instance: "",
    isOver: false,
  };
  world.history.tracks.push(track);
  return track;
}

function note(world: World, track: Track, event: SeenEvent): void {
  track.numbers.push(event.sequence_number);
  track.digests.push(seenDigest(event));
  track.atMs.push(performance.now());
  noteNumber(world, track.conversationId, event.sequence_number);
}

function lastSeen({ numbers, after }: Track): number {
  return numbers.at(-1) ?? after;
}

/** Opens a socket of a user; it begins where it is asked to, in each conversation. */
export function openSocketReader(world: World, name: string, userId: string, home?: Target): SocketReader {
  const tracks = new Map<string, Track>();
  /** Of which the user is a member again, though the end of the subscription before is not here yet. */
  const back = new Set<string>();
  let current: { socket: WebSocket; target: Target; confirmed: Set<string>; heardAtMs: number } | undefined;
  let isClosed = false;
  let reconnects = -1;

  function connect(target = world.targets.pick(world.random)): void {
    if (isClosed) return;
    if (target === undefined) return void setTimeout(connect, reopenMs);
    reconnects += 1;
    const url = `${target.url.replace(/^http/, "ws")}/v1/stream?access_token=${world.tokens.get(userId)}`;
    const socket = new WebSocket(url);
    const mine = { socket, target, confirmed: new Set<string>(), heardAtMs: performance.now() };
    current = mine;
    socket.addEventListener("message", ({ data }) => {
      if (current !== mine) return;
      mine.heardAtMs = performance.now();
      take(JSON.parse(String(data)), mine);
    });
    socket.addEventListener("close", () => lose(mine));
    socket.addEventListener("error", () => lose(mine));
  }

  function lose(mine: NonNullable<typeof current>): void {
    if (current !== mine) return;
    current = undefined;
    mine.socket.close();
    setTimeout(() => connect(world.targets.pick(world.random, mine.target.name)), reopenMs);
  }

  const pulse = setInterval(() => {
    if (current === undefined) return;
    const silentMs = performance.now() - current.heardAtMs;
    const isOpen = current.socket.readyState === WebSocket.OPEN;
    if (silentMs > (isOpen ? silentMsMax : openMsMax)) {
      world.targets.failed(current.target.name);
      lose(current);
    } else if (isOpen) current.socket.send('{"type":"ping"}');
  }, pingEveryMs);

  function ask(track: Track): void {
    if (current?.socket.readyState !== WebSocket.OPEN || track.isOver) return;
    const frame = { type: "subscribe", conversation_id: track.conversationId, after: lastSeen(track) };
    current.socket.send(JSON.stringify(frame));
  }

  function take(frame: any, mine: NonNullable<typeof current>): void {
    const track = tracks.get(frame.conversation_id);
    switch (frame.type) {
      case "hello":
        for (const one of tracks.values()) ask(one);
        return;
      case "subscribed":
        mine.confirmed.add(frame.conversation_id);
        if (track !== undefined) track.instance = mine.target.name;
        return;
      case "message":
        if (track === undefined) return;
        if (!mine.confirmed.has(frame.conversation_id)) track.faults.push("got an event before `subscribed`");
        note(world, track, frame);
        return;
      case "unsubscribed":
        mine.confirmed.delete(frame.conversation_id);
        if (frame.code === "member_removed" && track !== undefined) end(track);
        else if (track !== undefined) setTimeout(() => ask(track), reopenMs);
        return;
      case "error":
        if (track === undefined) return;
        if (frame.status === 403) end(track);
        else if (frame.status >= 500 || frame.status === 429) setTimeout(() => ask(track), reopenMs);
        else if (frame.code !== "already_subscribed") track.faults.push(`got ${frame.status} ${frame.code}`);
        return;
      default:
        return;
    }
  }

  function end(track: Track): void {
    track.isOver = true;
    if (back.delete(track.conversationId)) subscribe(track.conversationId, lastSeen(track));
  }

  function subscribe(conversationId: string, after: number): void {
    // Its server has not got to the removal yet, and will tell it: until then it is the same subscription.
    const earlier = tracks.get(conversationId);
    if (earlier !== undefined && !earlier.isOver) return void back.add(conversationId);
    const track = newTrack(world, name, userId, conversationId, after);
    tracks.set(conversationId, track);
    ask(track);
  }

  connect(home);
  return {
    name,
    tracks: () => [...tracks.values()],
    reconnects: () => reconnects,
    move() {
      if (current !== undefined) lose(current);
    },
    subscribe,
    close() {
      isClosed = true;
      clearInterval(pulse);
      current?.socket.close();
    },
  };
}

/** Opens an event stream of one conversation. */
export function openStreamReader(
  world: World,
  name: string,
  userId: string,
  conversationId: string,
): LiveReader {
  const track = newTrack(world, name, userId, conversationId, 0);
  let connection = new AbortController();
  let isClosed = false;
  let reconnects = -1;

  async function keepReading(): Promise<void> {
    let left: string | undefined;
    while (!isClosed) {
      const target = world.targets.pick(world.random, left);
      if (target !== undefined) {
        reconnects += 1;
        left = target.name;
        connection = new AbortController();
        await readFrom(target, connection).catch(() => world.targets.failed(target.name));
      }
      await Bun.sleep(reopenMs);
    }
  }

  async function readFrom(target: Target, mine: AbortController): Promise<void> {
    const late = setTimeout(() => mine.abort(), openMsMax);
    // An instance that hangs keeps its streams: they are given up when others find it away.
    const watch = setInterval(() => world.targets.isAway(target.name) && mine.abort(), silentMsMax);
    try {
      const last = track.numbers.at(-1);
      const response = await fetch(
        `${target.url}/v1/conversations/${conversationId}/events?after=${track.after}`,
        {
          headers: {
            authorization: `Bearer ${world.tokens.get(userId)}`,
            ...(last === undefined ? {} : { "last-event-id": String(last) }),
          },
          signal: mine.signal,
          keepalive: false,
        },
      );
      clearTimeout(late);
      if (!response.ok || response.body === null) return await Bun.sleep(reopenMs);
      track.instance = target.name;
      await readEventStream(response.body, mine.signal, take);
    } finally {
      clearTimeout(late);
      clearInterval(watch);
    }
  }

  function take(event: StreamedEvent, fault: string | undefined): void {
    if (fault !== undefined) track.faults.push(fault);
    note(world, track, event as SeenEvent);
  }

  void keepReading();
  return {
    name,
    tracks: () => [track],
    reconnects: () => reconnects,
    move: () => connection.abort(),
    close() {
      isClosed = true;
      connection.abort();
    },
  };
}
