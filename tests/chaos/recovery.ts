// How the service looks while it is harmed, and how soon it is itself again. A small steady probe at each instance: a
// post every 150 ms to a conversation of its own, waited for on a socket at each other instance; and, asked of Postgres
// itself, how old the oldest event is that is not yet on the public topics.
import type { Postgres } from "../../src/platform/postgres.ts";
import { call } from "./clients/calls.ts";
import { uuidOf } from "./clients/compose.ts";
import { readAnswer } from "./clients/delivery.ts";
import type { Target, World } from "./clients/world.ts";
import { type Post, saidDigest } from "./history.ts";

/** How it looked at one moment; undefined: nothing to tell. */
export interface Sample {
  atMs: number;
  /** Of each instance: how long the last post took, or has been taking. Infinity: it was not accepted. */
  acceptMs: Map<string, number>;
  /** From an acknowledgement at one instance to its arrival at another, the longest. */
  liveMs: number | undefined;
  /** How old the oldest event is that waits in the outbox. */
  outboxMs: number | undefined;
  /** The same of the oldest that the router has not brought to its topics. */
  routedMs: number | undefined;
}

/** A fault that was there. */
export interface Struck {
  name: string;
  what: string;
  group: string;
  target: string;
  beganAtMs: number;
  endedAtMs: number;
}

/** Probes at work. */
export interface Probes {
  samples: Sample[];
  stop(): void;
}

const probeEveryMs = 150;
const sampleEveryMs = 200;
const outstandingMax = 8;
const earlyMax = 1_000;
const reopenMs = 200;
const probeUser = "user-1";

/** A probe that was acknowledged, and where it is still waited for. */
interface Awaited {
  ackedAtMs: number;
  at: Set<string>;
}

/** Makes the probes' conversations, and starts. */
export async function startProbes(world: World, postgres: Postgres): Promise<Probes> {
  const samples: Sample[] = [];
  const awaited = new Map<string, Awaited>();
  const early = new Map<string, Set<string>>();
  const arrivedMs: number[] = [];
  const posters: { acceptMs(): number; name: string; stop(): void }[] = [];
  const listeners: { stop(): void }[] = [];
  /** Since when each socket has been subscribed to everything. */
  const open = new Map<string, number>();

  const ids = await Promise.all(world.targets.all.map((target) => makeConversation(world, target)));
  for (const [index, target] of world.targets.all.entries()) {
    const others = ids.filter((_, other) => other !== index);
    listeners.push(listen(world, target, others, arrived, opened));
    posters.push(postSteadily(world, target, ids[index] ?? "", acked));
  }

  function acked(messageId: string, from: string, sentAtMs: number): void {
    // One that was stored before a socket subscribed does not come there, though it may be acknowledged later.
    const others = [...open]
      .filter(([name, sinceMs]) => name !== from && sinceMs < sentAtMs && !early.get(messageId)?.has(name))
      .map(([name]) => name);
    early.delete(messageId);
    if (others.length > 0) awaited.set(messageId, { ackedAtMs: performance.now(), at: new Set(others) });
  }

  function arrived(messageId: string, at: string): void {
    const one = awaited.get(messageId);
    if (one === undefined) {
      // Often it is there before its acknowledgement.
      early.set(messageId, (early.get(messageId) ?? new Set()).add(at));
      arrivedMs.push(0);
      // Of those whose outcome stayed unknown.
      if (early.size > earlyMax) early.delete(early.keys().next().value ?? "");
      return;
    }
    if (!one.at.delete(at)) return;
    arrivedMs.push(performance.now() - one.ackedAtMs);
    if (one.at.size === 0) awaited.delete(messageId);
  }

  function opened(name: string, isOpen: boolean): void {
    if (isOpen) open.set(name, performance.now());
    else open.delete(name);
    // What came while it was away is not for this socket.
    for (const [id, one] of awaited) if (one.at.delete(name) && one.at.size === 0) awaited.delete(id);
  }

  const ages = watchAges(postgres);
  const timer = setInterval(() => {
    const atMs = performance.now();
    const waiting = awaited.values().map(({ ackedAtMs }) => atMs - ackedAtMs);
    const delays = [...arrivedMs.splice(0), ...waiting];
    samples.push({
      atMs,
      acceptMs: new Map(posters.map((poster) => [poster.name, poster.acceptMs()])),
      liveMs: delays.length > 0 ? Math.max(...delays) : undefined,
      ...ages.current(),
    });
  }, sampleEveryMs);

  return {
    samples,
    stop() {
      clearInterval(timer);
      ages.stop();
      for (const one of [...posters, ...listeners]) one.stop();
    },
  };
}

async function makeConversation(world: World, target: Target): Promise<string> {
  const { body } = await call(world, target, {
    client: "probe",
    user: probeUser,
    method: "POST",
    path: "/v1/conversations",
    body: { kind: "group", members: [] },
  });
  world.history.conversations.push({ id: body.id, channels: [], memberIds: [probeUser] });
  return body.id;
}

function postSteadily(
  world: World,
  target: Target,
  conversationId: string,
  onAcked: (messageId: string, from: string, sentAtMs: number) => void,
) {
  const outstanding = new Set<number>();
  let lastMs = 0;
  const post = async () => {
    if (outstanding.size >= outstandingMax) return;
    const sentAtMs = performance.now();
    outstanding.add(sentAtMs);
    const message_id = uuidOf(world.random);
    const payload = { type: "text", text: "probe" };
    const said = saidDigest({ event: "message.created", message_id, sender_id: probeUser, payload });
    const noted: Post = {
      kind: "message.created",
      conversationId,
      senderId: probeUser,
      key: message_id,
      said,
      tries: [],
    };
    world.history.posts.push(noted);
    const { tried, body } = await call(world, target, {
      client: "probe",
      user: probeUser,
      method: "POST",
      path: "/v1/messages",
      body: { message_id, conversation_id: conversationId, payload },
    });
    noted.tries.push(tried.outcome === "ok" ? readAnswer(tried, body) : tried);
    outstanding.delete(sentAtMs);
    lastMs = tried.outcome === "ok" ? tried.completedAtMs - tried.invokedAtMs : Number.POSITIVE_INFINITY;
    if (tried.outcome === "ok") onAcked(message_id, target.name, sentAtMs);
  };
  const timer = setInterval(() => void post(), probeEveryMs);
  return {
    name: target.name,
    acceptMs() {
      const [oldest] = outstanding;
      return Math.max(lastMs, oldest === undefined ? 0 : performance.now() - oldest);
    },
    stop: () => clearInterval(timer),
  };
}

/** A socket at one instance, for the conversations of the probes at the others, always from now on. */
function listen(
  world: World,
  target: Target,
  conversationIds: readonly string[],
  onArrived: (messageId: string, at: string) => void,
  onOpened: (name: string, isOpen: boolean) => void,
) {
  let current: WebSocket | undefined;
  let isStopped = false;
  function connect(): void {
    if (isStopped) return;
    const token = world.tokens.get(probeUser);
    const socket = new WebSocket(`${target.url.replace(/^http/, "ws")}/v1/stream?access_token=${token}`);
    current = socket;
    const unconfirmed = new Set(conversationIds);
    const subscribe = (conversation_id: string) => {
      if (socket.readyState === WebSocket.OPEN)
        socket.send(JSON.stringify({ type: "subscribe", conversation_id }));
    };
    socket.addEventListener("message", ({ data }) => {
      const frame = JSON.parse(String(data));
      if (frame.type === "hello") for (const id of conversationIds) subscribe(id);
      else if (frame.type === "message") onArrived(frame.message_id, target.name);
      else if (frame.type === "subscribed") {
        unconfirmed.delete(frame.conversation_id);
        if (unconfirmed.size === 0) onOpened(target.name, true);
      } else if (frame.type === "unsubscribed" || frame.type === "error") {
        onOpened(target.name, false);
        unconfirmed.add(frame.conversation_id);
        setTimeout(() => subscribe(frame.conversation_id), reopenMs);
      }
    });
    socket.addEventListener("close", () => {
      onOpened(target.name, false);
      setTimeout(connect, reopenMs);
    });
  }
  connect();
  return {
    stop() {
      isStopped = true;
      current?.close();
    },
  };
}

/** Of the outbox, and of the router by when each conversation's numbers were first seen. */
function watchAges(postgres: Postgres) {
  let outboxMs: number | undefined;
  let routedMs: number | undefined;
  let isAsking = false;
  const heads = new Map<string, { number: number; atMs: number }[]>();
  const ask = async () => {
    if (isAsking) return;
    isAsking = true;
    try {
      const rows = await postgres.query<{ id: string; last: number; routed: number; oldest: number | null }>(
        `select c.id, c.last_sequence_number as last, coalesce(r.sequence_number, 0) as routed,
          (select extract(epoch from clock_timestamp() - min(enqueued_at))::float8 * 1000 from outbox) as oldest
         from conversations c left join routed r on r.conversation_id = c.id`,
      );
      const now = performance.now();
      outboxMs = rows[0]?.oldest ?? 0;
      routedMs = 0;
      for (const { id, last, routed } of rows) {
        const list = heads.get(id) ?? [];
        heads.set(id, list);
        if (last > (list.at(-1)?.number ?? 0)) list.push({ number: last, atMs: now });
        while (list.length > 0 && (list[0]?.number ?? 0) <= routed) list.shift();
        routedMs = Math.max(routedMs, now - (list[0]?.atMs ?? now));
      }
    } catch {
      outboxMs = undefined;
      routedMs = undefined;
    }
    isAsking = false;
  };
  const timer = setInterval(() => void ask(), sampleEveryMs);
  return {
    current: () => ({ outboxMs, routedMs }),
    stop: () => clearInterval(timer),
  };
}

/** What a fault did, or two that overlapped. Times in ms; undefined: it was not to be seen. */
export interface Effect {
  what: string;
  /** The worst while it was there: of instances that were not its target. */
  during: { acceptMs: number | undefined; liveMs: number | undefined; outboxMs: number | undefined };
  /** From its beginning until the others had taken over what it had stopped. */
  takenOverMs: number | undefined;
  recovered: { accept: Recovery; live: Recovery; publish: Recovery; route: Recovery };
}

/** From the end of the fault until all was as before or, if that was not seen, until the next fault came. */
export interface Recovery {
  afterMs: number;
  isSeen: boolean;
}

const acceptMsMax = 1_000;
const liveMsMax = 500;
const outboxMsMax = 1_000;
const routedMsMax = 2_000;
const steadyMs = 1_000;

/** What each fault did; two that overlapped are one, since nobody can tell their effects apart. */
export function effectsOf(struck: readonly Struck[], samples: readonly Sample[]): Effect[] {
  return episodesOf(struck).map((faults, index, episodes) => {
    const beganAtMs = Math.min(...faults.map((fault) => fault.beganAtMs));
    const endedAtMs = endOf(faults);
    const nextAtMs = episodes[index + 1]?.[0]?.beganAtMs ?? Number.POSITIVE_INFINITY;
    const within = samples.filter(({ atMs }) => atMs >= beganAtMs && atMs < endedAtMs);
    const after = samples.filter(({ atMs }) => atMs >= endedAtMs && atMs < nextAtMs);
    const away = new Set(faults.filter(({ group }) => group === "instance").map(({ target }) => target));
    const isPublishing = ({ outboxMs }: Sample) => outboxMs !== undefined && outboxMs < outboxMsMax;
    return {
      what: faults
        .map(({ what }) => what)
        .toSorted()
        .join(", with "),
      during: {
        acceptMs: worst(within.map((sample) => acceptOf(sample, away))),
        liveMs: worst(within.map(({ liveMs }) => liveMs)),
        outboxMs: worst(within.map(({ outboxMs }) => outboxMs)),
      },
      takenOverMs: steadyFrom(within, beganAtMs, isPublishing),
      recovered: {
        accept: recoveryIn(after, endedAtMs, (sample) => acceptOf(sample) < acceptMsMax),
        live: recoveryIn(after, endedAtMs, ({ liveMs }) => (liveMs ?? 0) < liveMsMax),
        publish: recoveryIn(after, endedAtMs, isPublishing),
        route: recoveryIn(
          after,
          endedAtMs,
          ({ routedMs }) => routedMs !== undefined && routedMs < routedMsMax,
        ),
      },
    };
  });
}

/** Faults in the order of their beginning, those together that overlap. */
function episodesOf(struck: readonly Struck[]): Struck[][] {
  const episodes: Struck[][] = [];
  for (const fault of struck.toSorted((one, other) => one.beganAtMs - other.beganAtMs)) {
    const last = episodes.at(-1);
    if (last !== undefined && fault.beganAtMs <= endOf(last)) last.push(fault);
    else episodes.push([fault]);
  }
  return episodes;
}

function endOf(faults: readonly Struck[]): number {
  return Math.max(...faults.map(({ endedAtMs }) => endedAtMs));
}

function recoveryIn(
  samples: readonly Sample[],
  fromMs: number,
  isWell: (sample: Sample) => boolean,
): Recovery {
  const afterMs = steadyFrom(samples, fromMs, isWell);
  if (afterMs !== undefined) return { afterMs, isSeen: true };
  return { afterMs: (samples.at(-1)?.atMs ?? fromMs) - fromMs, isSeen: false };
}

/** Of all instances but those that are away. */
function acceptOf({ acceptMs }: Sample, away: ReadonlySet<string> = new Set()): number {
  return Math.max(0, ...acceptMs.entries().map(([name, ms]) => (away.has(name) ? 0 : ms)));
}

/** From when on all was well for at least a second, and to the end of the samples. */
function steadyFrom(
  samples: readonly Sample[],
  fromMs: number,
  isWell: (sample: Sample) => boolean,
): number | undefined {
  const lastBad = samples.findLastIndex((sample) => !isWell(sample));
  const first = samples[lastBad + 1];
  const last = samples.at(-1);
  if (first === undefined || last === undefined || last.atMs - first.atMs < steadyMs) return undefined;
  return lastBad === -1 ? 0 : first.atMs - fromMs;
}

function worst(values: readonly (number | undefined)[]): number | undefined {
  const known = values.filter((value) => value !== undefined);
  return known.length === 0 ? undefined : Math.max(...known);
}
