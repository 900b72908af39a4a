// Proof of the checker: with each seeded defect a short run without any fault breaks just the guarantee that it must,
// and without a defect none.
//
// CHAOS_DEFECT_NAMED: runs only those whose name has this text.
import { expect, setDefaultTimeout, test } from "bun:test";
import { until } from "../support/until.ts";
import type { Judgement } from "./checker/judgement.ts";
import { defects, type SeededDefect } from "./defects.ts";
import { run } from "./run.ts";
import { openSharedStage } from "./shared-stage.ts";

const seed = 7;
const atOnceMax = 3;
const triesMax = 3;
const small = { users: 6, conversations: 8, guests: 3 };
const named = process.env["CHAOS_DEFECT_NAMED"] ?? "";
let free = atOnceMax;

setDefaultTimeout(600_000);

test.concurrent("a run without a defect is green", () => judge(undefined));

for (const defect of defects.filter(({ name }) => name.includes(named)))
  test.concurrent(`finds ${defect.breaks} broken when ${defect.name}`, () => judge(defect));

async function judge(defect: SeededDefect | undefined) {
  await until(() => free > 0, "another run has ended", 600_000);
  free -= 1;
  try {
    // On a busy machine so short a run may give some defects no occasion: it is made longer.
    for (let tries = 1; ; tries += 1) {
      const broken = await brokenIn(defect, tries);
      const found = broken.map(({ guarantee }) => guarantee);
      if (defect && !found.includes(defect.breaks) && tries < triesMax) continue;
      if (defect) expect(found).toContain(defect.breaks);
      const permitted = [defect?.breaks, ...(defect?.mayBreak ?? [])];
      expect(broken.filter(({ guarantee }) => !permitted.includes(guarantee))).toEqual([]);
      return;
    }
  } finally {
    free += 1;
  }
}

/** The guarantees that a run with the defect breaks, and how. */
async function brokenIn(defect: SeededDefect | undefined, tries: number): Promise<Judgement[]> {
  await using stage = await openSharedStage({ instances: 1, ...(defect && { defect }) });
  const mayBeStuck = defect && [defect.breaks, ...(defect.mayBreak ?? [])].includes("stuck");
  const { judgements } = await run({
    stage,
    seed: seed + tries,
    seconds: 3 * tries,
    traffic: { rate: 200, mix: "everything" },
    kinds: [],
    size: small,
    settleMsMax: mayBeStuck ? 10_000 : 20_000,
    report: () => undefined,
  });
  return judgements.filter(({ violations }) => violations > 0);
}
