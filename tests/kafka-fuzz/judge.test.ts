import { expect, test } from "bun:test";
import { judge } from "./judge.ts";
import { planFaults } from "./schedule.ts";

/** Messages of partition 0, or of another one. */
const written = (numbers: number[], partition = 0) => numbers.map((number) => ({ partition, number }));

test("finds nothing in a log that is as it was acknowledged", () => {
  const acknowledged = [...written([0, 1, 2]), ...written([0, 1], 1)];
  const verdict = judge(acknowledged, acknowledged);
  expect(verdict).toEqual({ acknowledged: 5, lost: 0, doubled: 0, reordered: 0 });
});

test("finds what was acknowledged and is not in the log of its partition", () => {
  const verdict = judge(
    [...written([0, 1, 2]), ...written([5], 1)],
    [...written([0, 2, 5]), ...written([], 1)],
  );
  expect(verdict).toMatchObject({ acknowledged: 4, lost: 2 });
});

test("does not miss what was never acknowledged", () => {
  expect(judge(written([0]), written([0, 1]))).toMatchObject({ acknowledged: 1, lost: 0 });
});

test("counts each further record of a message, early or late, and no disorder for it", () => {
  const verdict = judge(written([0, 1, 2]), written([0, 0, 1, 2, 0, 1]));
  expect(verdict).toMatchObject({ lost: 0, doubled: 3, reordered: 0 });
});

test("finds first records that stand behind a later message's", () => {
  const verdict = judge(written([0, 1, 2, 3]), written([0, 3, 1, 2, 3]));
  expect(verdict).toMatchObject({ lost: 0, doubled: 1, reordered: 2 });
});

test("plans the same faults for the same seed, and others for another", () => {
  expect(planFaults(7, 600, 12)).toEqual(planFaults(7, 600, 12));
  expect(planFaults(8, 600, 12)).not.toEqual(planFaults(7, 600, 12));
});

test("plans every kind of fault, all within the time", () => {
  const faults = planFaults(7, 600, 12);
  expect(new Set(faults.map(({ kind }) => kind)).size).toBe(10);
  expect(faults.every(({ atMs }) => atMs < 600_000)).toBe(true);
});
