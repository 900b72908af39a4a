// One run: clients and readers at work on a stage, faults by plan, everything healed, everything judged.
import { seededRandom } from "../support/random.ts";
import { guarantees, Judgement, merged } from "./checker/judgement.ts";
import { type Clients, startClients, type Traffic } from "./clients/clients.ts";
import { makeWorld, type World } from "./clients/world.ts";
import type { FaultKind } from "./faults.ts";
import { type LiveReader, openSocketReader, openStreamReader, type SocketReader } from "./readers.ts";
import { type Effect, effectsOf, type Struck, startProbes } from "./recovery.ts";
import { type PlannedFault, planFaults } from "./schedule.ts";
import { settle } from "./settle.ts";
import type { Stage } from "./stage.ts";
import { judge } from "./verdict.ts";

/** What a run is made of. */
export interface RunOptions {
  stage: Stage;
  seed: number;
  seconds: number;
  traffic: Traffic;
  /** Which kinds of faults may strike; none: a run without any. */
  kinds: readonly FaultKind[];
  /** How many users, guests and conversations there are. */
  size?: Parameters<typeof makeWorld>[3];
  settleMsMax?: number;
  /** Every planned fault strikes, also where slow healing makes the run longer than its seconds. */
  isWhole?: boolean;
  report(line: string): void;
  signal?: AbortSignal;
}

/** What came of it. */
export interface RunResult {
  judgements: Judgement[];
  effects: Effect[];
  struck: Struck[];
  totals: Record<string, number>;
}

const usualSize = { users: 24, conversations: 40, guests: 6 };
const settleMsUsual = 90_000;
const moveEveryMs = 7_000;
const progressEveryMs = 1_000;
/** After the last fault, so that its recovery is seen. */
const quietEndMs = 2_000;
const watched = 8;

/** Rejects when the run is interrupted; violations are an outcome. */
export async function run(options: RunOptions): Promise<RunResult> {
  const { stage, seed, seconds, signal, report } = options;
  const random = seededRandom(seed);
  report("clients: making conversations");
  const world = await makeWorld(stage.instances, stage.config, random, options.size ?? usualSize);
  const probes = await startProbes(world, stage.postgres);
  const clients = startClients(world, options.traffic);
  const readers = openReaders(world, clients);
  const faults = new Faults(options.kinds);
  const startedAtMs = performance.now();
  const progress = setInterval(() => {
    const elapsed = Math.round((performance.now() - startedAtMs) / 1000);
    const { acknowledged, unknown } = clients.deliveries.counts;
    const broken = faults.current().join(", ") || "nothing";
    report(
      `running: ${elapsed} of ${seconds} s, ${acknowledged} acknowledged, ${unknown} unknown so far, ` +
        `${faults.struck.length} faults, broken now: ${broken}`,
    );
  }, progressEveryMs);
  try {
    const plan = options.kinds.length === 0 ? [] : planFaults({ seed, seconds, kinds: options.kinds });
    const strikeEndMs = options.isWhole
      ? Number.POSITIVE_INFINITY
      : startedAtMs + seconds * 1000 - quietEndMs;
    await faults.follow(plan, strikeEndMs, signal);
    await sleepUntil(startedAtMs + seconds * 1000, signal);
    clearInterval(progress);
    report("healing: all faults end");
    clients.stopNew();
    await stage.healAll();
    const healedAtMs = performance.now();
    const { config, postgres, instances } = stage;
    const restless = await settle({
      config,
      postgres,
      instances,
      clients,
      report,
      signal,
      tracks: world.history.tracks,
      withinMs: options.settleMsMax ?? settleMsUsual,
    });
    report(`settling: done after ${Math.round(performance.now() - healedAtMs)} ms`);
    probes.stop();
    const verdict = await judge(stage, world, report);
    const exits = stage.unexpectedExits();
    const judgements = merged([
      ...verdict.judgements,
      judgementOf("stuck", 1, restless),
      judgementOf("exits", stage.instances.length, [
        ...exits.map(({ instance, code, output }) => `${instance} ended with ${code}: ${output}`),
        ...faults.failures,
      ]),
      judgementOf("members", 0, unendedGuests(clients, readers.guests)),
    ]);
    return {
      judgements: Object.keys(guarantees).flatMap((name) =>
        judgements.filter((one) => one.guarantee === name),
      ),
      effects: effectsOf(faults.struck, probes.samples),
      struck: faults.struck,
      totals: totalsOf(world, clients, readers.all, verdict.repeats, faults),
    };
  } finally {
    clearInterval(progress);
    probes.stop();
    clients.close();
    for (const reader of readers.all) reader.close();
    clearInterval(readers.moving);
  }
}

/** Does what was planned, when it was planned, and notes when it was. */
class Faults {
  readonly struck: Struck[] = [];
  readonly failures: string[] = [];
  readonly #kinds: Map<string, FaultKind>;
  readonly #current = new Map<string, number>();

  constructor(kinds: readonly FaultKind[]) {
    this.#kinds = new Map(kinds.map((kind) => [kind.name, kind]));
  }

  /** What is broken now. */
  current(): string[] {
    return [...this.#current.keys()];
  }

  /**
   * Keeps the plan's quiet and its overlaps: a fault that took longer to heal than was planned moves those after it,
   * and what would come too late is left out.
   */
  async follow(plan: readonly PlannedFault[], endMs: number, signal: AbortSignal | undefined): Promise<void> {
    const startedAtMs = performance.now();
    const done: { fault: PlannedFault; beganAtMs: number; ended: Promise<number> }[] = [];
    for (const fault of plan.toSorted((one, other) => one.atMs - other.atMs)) {
      let atMs = startedAtMs + fault.atMs;
      for (const { fault: earlier, beganAtMs, ended } of done) {
        const quietMs = fault.atMs - earlier.atMs - earlier.durationMs;
        const earliestMs = quietMs > 0 ? (await ended) + quietMs : beganAtMs + fault.atMs - earlier.atMs;
        atMs = Math.max(atMs, earliestMs);
      }
      const kind = this.#kinds.get(fault.name);
      if (kind === undefined || atMs + fault.durationMs > endMs) break;
      await sleepUntil(atMs, signal);
      const ended = this.#strike(kind, fault.durationMs, signal).then(() => performance.now());
      // It is awaited below; until then an interruption must not count as unhandled.
      ended.catch(() => undefined);
      done.push({ fault, beganAtMs: performance.now(), ended });
    }
    await Promise.all(done.map(({ ended }) => ended));
  }

  async #strike(kind: FaultKind, durationMs: number, signal: AbortSignal | undefined): Promise<void> {
    const { name, what, group, target } = kind;
    const beganAtMs = performance.now();
    this.#current.set(name, beganAtMs);
    await kind.begin().catch((error) => this.failures.push(`${name} could not begin: ${error}`));
    await sleepUntil(beganAtMs + durationMs, signal);
    await kind.end().catch((error) => this.failures.push(`${name} could not be healed: ${error}`));
    this.#current.delete(name);
    this.struck.push({ name, what, group, target, beganAtMs, endedAtMs: performance.now() });
  }
}

/** Sockets with several conversations and streams of one, at every instance; one of each moves on purpose. */
function openReaders(world: World, clients: Clients) {
  const { random, conversations, hot, targets, guests } = world;
  const all: LiveReader[] = [];
  const movers: LiveReader[] = [];
  const openSocket = (name: string, home?: (typeof targets.all)[number]) => {
    const user = random.pick(hot.memberIds);
    const socket = openSocketReader(world, name, user, home);
    const mine = conversations.filter(({ id, memberIds }) => id !== hot.id && memberIds.includes(user));
    for (const { id } of [hot, ...random.shuffle(mine).slice(0, watched)]) socket.subscribe(id, 0);
    all.push(socket);
    return socket;
  };
  for (const target of targets.all) {
    openSocket(`socket that began at ${target.name}`, target);
    const conversation = random.pick(conversations);
    const user = random.pick(conversation.memberIds);
    all.push(openStreamReader(world, `event stream ${all.length}`, user, conversation.id));
  }
  movers.push(openSocket("socket that moves"));
  const stream = openStreamReader(world, "event stream that moves", random.pick(hot.memberIds), hot.id);
  movers.push(stream);
  all.push(stream);

  const guestReaders = new Map<string, SocketReader>();
  for (const guest of guests) {
    const reader = openSocketReader(world, `socket of ${guest}`, guest);
    guestReaders.set(guest, reader);
    all.push(reader);
  }
  clients.guests.onAdded = (guest, conversationId, number) =>
    guestReaders.get(guest)?.subscribe(conversationId, random.next() < 0.5 ? 0 : Math.max(0, number - 1));
  const moving = setInterval(() => random.pick(movers).move(), moveEveryMs);
  return { all, guests: guestReaders, moving };
}

/** Guests that are no members in the end, and whose socket was not told. */
function unendedGuests(clients: Clients, readers: Map<string, SocketReader>): string[] {
  return [...readers].flatMap(([guest, reader]) =>
    reader
      .tracks()
      .filter(({ conversationId, isOver }) => !isOver && !clients.guests.isMember(guest, conversationId))
      .map(
        ({ conversationId }) => `${conversationId}: ${reader.name} was never told that its user was removed`,
      ),
  );
}

function judgementOf(
  guarantee: Judgement["guarantee"],
  checked: number,
  violations: readonly string[],
): Judgement {
  const judgement = new Judgement(guarantee);
  judgement.checked = checked;
  for (const violation of violations) judgement.broken(violation);
  return judgement;
}

function totalsOf(
  { history }: World,
  { deliveries, guests }: Clients,
  readers: readonly LiveReader[],
  repeats: number,
  faults: Faults,
): Record<string, number> {
  const { acknowledged, unknown, refused, again, forgotten } = deliveries.counts;
  const sum = (values: Iterable<number>) => [...values].reduce((total, value) => total + value, 0);
  return {
    faults: faults.struck.length,
    "messages acknowledged": acknowledged,
    "outcomes unknown at first": unknown,
    "sent again": again,
    "left unknown": forgotten,
    refused,
    "edits and deletes": history.posts.filter(({ kind }) => kind !== "message.created").length,
    "moves of members": guests.moves,
    "pages read": history.pages.length,
    receipts: history.receipts.length,
    "events seen by readers": sum(history.tracks.map(({ numbers }) => numbers.length)),
    reconnects: sum(readers.map((reader) => reader.reconnects())),
    "repeats in topics": repeats,
  };
}

async function sleepUntil(atMs: number, signal: AbortSignal | undefined): Promise<void> {
  const leftMs = atMs - performance.now();
  if (leftMs <= 0) return;
  signal?.throwIfAborted();
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, leftMs);
  const stop = () => reject(signal?.reason);
  signal?.addEventListener("abort", stop);
  await promise.finally(() => {
    clearTimeout(timer);
    signal?.removeEventListener("abort", stop);
  });
}
