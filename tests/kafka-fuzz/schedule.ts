// A seed comes in, the faults of a run leave: what befalls which broker, when and for how long.

import { choose, type Random, seededRandom } from "../support/random.ts";

/** Every kind of fault; faults.ts says what each does. */
export const faultKinds = [
  "kill",
  "pause",
  "elect",
  "reassign",
  "drop_answers",
  "reset_answers",
  "delay_answers",
  "delay_metadata",
  "cut",
  "late_and_lost",
] as const;

export type FaultKind = (typeof faultKinds)[number];

/** One fault. `brokers` are ids, the first the one that is hit; `partitions` are those whose leaders move. */
export interface PlannedFault {
  kind: FaultKind;
  atMs: number;
  durationMs: number;
  brokers: [number, number, number];
  partitions: number[];
}

const partitionsMovedMax = 6;
/** How much of each kind, in proportion. Leaders are moved with every second fault that harms answers. */
const weights: Record<FaultKind, number> = {
  kill: 2,
  pause: 2,
  elect: 5,
  reassign: 2,
  drop_answers: 2,
  reset_answers: 3,
  delay_answers: 3,
  delay_metadata: 2,
  cut: 3,
  late_and_lost: 4,
};
const longestMs: Record<FaultKind, number> = {
  kill: 8_000,
  pause: 6_000,
  elect: 0,
  reassign: 0,
  drop_answers: 800,
  reset_answers: 1_500,
  delay_answers: 3_000,
  delay_metadata: 3_000,
  cut: 0,
  late_and_lost: 3_000,
};
const shortestMs = 200;
/** Between the starts of two faults; longer ones go on meanwhile. */
const gapLeastMs = 300;
const gapMostMs = 2_500;
/** After a broker was away: until it may be that one is again, for two of three must be there. */
const calmMs = 6_000;

/** The faults of a run of so many seconds, by their time. */
export function planFaults(seed: number, seconds: number, partitionCount: number): PlannedFault[] {
  const random = seededRandom(seed);
  const faults: PlannedFault[] = [];
  const partitions = Array.from({ length: partitionCount }, (_, partition) => partition);
  let allThereFromMs = 0;
  for (let atMs = gapMostMs; atMs < seconds * 1_000; atMs += random.between(gapLeastMs, gapMostMs)) {
    const drawn = drawKind(random);
    const durationMs = random.between(Math.min(shortestMs, longestMs[drawn]), longestMs[drawn]);
    const brokers = choose(random, [1, 2, 3], 3) as [number, number, number];
    const moved = choose(random, partitions, random.between(1, partitionsMovedMax));
    const takesBrokerAway = drawn === "kill" || drawn === "pause";
    const kind = takesBrokerAway && atMs < allThereFromMs ? "elect" : drawn;
    if (kind === "kill" || kind === "pause") allThereFromMs = atMs + durationMs + calmMs;
    faults.push({ kind, atMs, durationMs: kind === drawn ? durationMs : 0, brokers, partitions: moved });
  }
  return faults;
}

function drawKind(random: Random): FaultKind {
  const total = faultKinds.reduce((sum, kind) => sum + weights[kind], 0);
  let left = random.next() * total;
  for (const kind of faultKinds) {
    left -= weights[kind];
    if (left < 0) return kind;
  }
  return "elect";
}
