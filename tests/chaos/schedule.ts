// When which fault is there: a plan that the seed alone decides, so that a run can be repeated.
import { type Random, seededRandom } from "../support/random.ts";
import type { FaultOutline } from "./faults.ts";

/** One fault of a run; times are since its start. */
export interface PlannedFault {
  id: number;
  /** The name of its kind. */
  name: string;
  atMs: number;
  durationMs: number;
}

/** From what a plan is made. `seconds` is at least 20. */
export interface PlanOptions {
  seed: number;
  seconds: number;
  kinds: readonly FaultOutline[];
}

/** Before the first fault, and after the last. */
const quietStartMs = 2_000;
const quietEndMs = 4_000;
/** Most faults are no longer than this; a few are as long as their kind permits. */
const usualMsMax = 6_000;
const msPerLongFault = 120_000;
/** Runs shorter than this have faults that are as short as their kind permits, with less quiet between. */
const denseMsMax = 120_000;
/** How many of the episodes are of two faults: of all faults about a third overlap then. */
const pairShare = 0.25;

/**
 * Plans a run: episodes of one fault, or of two of different groups that overlap, with some quiet seconds after each
 * in which recovery can be seen. Every `what` comes before one comes again.
 */
export function planFaults({ seed, seconds, kinds }: PlanOptions): PlannedFault[] {
  const random = seededRandom(seed);
  const endMs = seconds * 1_000 - quietEndMs;
  const isDense = seconds * 1_000 <= denseMsMax;
  const deck = openDeck(kinds, random);
  const plan: PlannedFault[] = [];
  let longLeft = Math.floor((seconds * 1_000) / msPerLongFault);

  const add = (kind: FaultOutline, atMs: number, durationMs: number) => {
    plan.push({ id: plan.length + 1, name: kind.name, atMs, durationMs });
    return atMs + durationMs;
  };

  function durationOf({ durationMs: [least, most] }: FaultOutline): number {
    if (isDense) return random.between(least, Math.max(least, Math.min(most, 2_000)));
    if (most > usualMsMax && longLeft > 0 && random.next() < 0.5) {
      longLeft -= 1;
      return random.between(Math.round(most * 0.7), most);
    }
    return random.between(least, Math.max(least, Math.min(most, usualMsMax)));
  }

  for (let nowMs = quietStartMs; ; ) {
    const first = deck.take();
    const durationMs = durationOf(first);
    if (nowMs + durationMs > endMs) break;
    let quietFromMs = add(first, nowMs, durationMs);
    const second = random.next() < pairShare ? deck.takeOther(first) : undefined;
    if (second !== undefined) {
      const atMs = nowMs + random.between(Math.round(durationMs * 0.2), Math.round(durationMs * 0.8));
      const secondMs = durationOf(second);
      if (atMs + secondMs <= endMs) quietFromMs = Math.max(quietFromMs, add(second, atMs, secondMs));
    }
    nowMs = quietFromMs + (isDense ? random.between(2_000, 3_500) : random.between(3_000, 5_500));
  }
  return plan;
}

/** Deals kinds: of each `what` one, then again of each one. */
function openDeck(kinds: readonly FaultOutline[], random: Random) {
  const targets = new Map<string, FaultOutline[]>();
  for (const kind of random.shuffle(kinds)) targets.set(kind.what, [...(targets.get(kind.what) ?? []), kind]);
  let cards: FaultOutline[] = [];

  /** One of each `what`: first one of each group, then all others evenly mixed. */
  function deal(): FaultOutline[] {
    const dealt = [...targets.values()].map((ofWhat) => {
      // In turn: the next time it is another target's.
      const kind = ofWhat.shift() as FaultOutline;
      ofWhat.push(kind);
      return kind;
    });
    const groups = Map.groupBy(random.shuffle(dealt), (kind: FaultOutline) => kind.group);
    const placed = [...groups.values()].flatMap((ofGroup) =>
      ofGroup.map((kind, index) => ({
        kind,
        place: index === 0 ? random.next() - 1 : (index + random.next()) / ofGroup.length,
      })),
    );
    return placed.toSorted((one, other) => one.place - other.place).map(({ kind }) => kind);
  }

  const refill = () => {
    if (cards.length === 0) cards = deal();
  };
  return {
    take(): FaultOutline {
      refill();
      return cards.shift() as FaultOutline;
    },
    /** The next one of another group that does not harm the same. */
    takeOther(than: FaultOutline): FaultOutline | undefined {
      refill();
      const index = cards.findIndex(({ group, target }) => group !== than.group && target !== than.target);
      return index === -1 ? undefined : cards.splice(index, 1)[0];
    },
  };
}
