import { describe, expect, test } from "bun:test";
import { upTo } from "../support/walk.ts";
import type { FaultGroup, FaultOutline } from "./faults.ts";
import { type PlannedFault, planFaults } from "./schedule.ts";

const groups: FaultGroup[] = ["instance", "worker", "postgres", "redis", "kafka", "network", "clock", "disk"];
/** Of each group some kinds, each against two targets, and one that may last long. */
const kinds: FaultOutline[] = groups.flatMap((group, index) =>
  upTo(2 + index).flatMap((number) =>
    ["one", "two"].map((target) => ({
      name: `${target} ${group} ${number}`,
      group,
      what: `${group} ${number}`,
      target: `${target} ${group}`,
      durationMs: [1_000, number === 1 ? 30_000 : 6_000] as const,
    })),
  ),
);
const kindOf = new Map(kinds.map((kind) => [kind.name, kind]));
const whatOf = ({ name }: PlannedFault) => kindOf.get(name)?.what ?? "";
const groupOf = ({ name }: PlannedFault) => kindOf.get(name)?.group;
const endOf = ({ atMs, durationMs }: PlannedFault) => atMs + durationMs;
const seeds = upTo(200);
const long = (seed: number) => planFaults({ seed, seconds: 600, kinds });

test("plans the same for a seed, and other faults for another", () => {
  expect(long(7)).toEqual(long(7));
  expect(long(7)).not.toEqual(long(8));
});

test("ends every fault before the run does", () => {
  for (const seconds of [20, 45, 600]) {
    for (const seed of seeds) {
      for (const fault of planFaults({ seed, seconds, kinds }))
        expect(endOf(fault)).toBeLessThanOrEqual(seconds * 1_000 - 4_000);
    }
  }
});

describe("a run of ten minutes", () => {
  test("has at least 60 faults, of every kind one before it repeats any", () => {
    const whats = new Set(kinds.map(({ what }) => what)).size;
    for (const seed of seeds) {
      const plan = long(seed);
      expect(plan.length).toBeGreaterThanOrEqual(60);
      // A pair takes its second fault from further on, by a few places.
      expect(new Set(plan.slice(0, whats).map(whatOf)).size).toBe(whats);
    }
  });

  test("has about a third of its faults while one of another group and target is there", () => {
    const shares = seeds.map((seed) => {
      const plan = long(seed);
      const overlapping = plan.filter((fault) => overlapsOf(fault, plan).length > 0);
      for (const fault of overlapping) {
        const [other, ...more] = overlapsOf(fault, plan);
        expect(more).toBeEmpty();
        expect(groupOf(fault)).not.toBe(other && groupOf(other));
      }
      return overlapping.length / plan.length;
    });
    const mean = shares.reduce((sum, share) => sum + share) / shares.length;
    expect(mean).toBeGreaterThan(0.25);
    expect(mean).toBeLessThan(0.5);
  });

  test("leaves quiet seconds after each fault or pair, and is long a few times only", () => {
    for (const seed of seeds) {
      const plan = long(seed);
      const ends = plan.map(endOf);
      plan.forEach((fault, index) => {
        if (index === 0 || fault.atMs < Math.max(...ends.slice(0, index))) return;
        expect(fault.atMs - Math.max(...ends.slice(0, index))).toBeGreaterThanOrEqual(3_000);
      });
      expect(plan.filter(({ durationMs }) => durationMs > 6_000).length).toBeLessThanOrEqual(5);
    }
  });
});

test("a run of 50 seconds has at least eight faults, of every group one", () => {
  for (const seed of seeds) {
    const plan = planFaults({ seed, seconds: 50, kinds });
    expect(plan.length).toBeGreaterThanOrEqual(8);
    expect(new Set(plan.map(groupOf)).size).toBe(groups.length);
  }
});

function overlapsOf(fault: PlannedFault, plan: PlannedFault[]): PlannedFault[] {
  return plan.filter((other) => other !== fault && other.atMs < endOf(fault) && fault.atMs < endOf(other));
}
