// A short run of the command's own kind, with a seed: faults of every group strike real processes, and nothing is
// lost, doubled, out of order or stuck. Long ones are for `bun run chaos`.
import { expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { run } from "./run.ts";
import { openStage } from "./stage.ts";

const seed = 3;
const seconds = 36;

setDefaultTimeout(300_000);

test("nothing acknowledged is lost, doubled or reordered while faults of every group strike", async () => {
  const dataDirectory = mkdtempSync(join(tmpdir(), "chat4all-chaos-"));
  try {
    await using stage = await openStage({ instances: 2, brokers: 1, dataDirectory, report: () => undefined });
    const { judgements, struck, totals } = await run({
      stage,
      seed,
      seconds,
      traffic: { rate: 400, mix: "load" },
      kinds: stage.faults,
      isWhole: true,
      report: () => undefined,
    });
    expect(
      judgements.flatMap(({ guarantee, shown }) => shown.map((text) => `${guarantee}: ${text}`)),
    ).toEqual([]);
    expect(judgements.every(({ checked }) => checked > 0)).toBe(true);
    expect(new Set(struck.map(({ group }) => group))).toEqual(
      new Set(stage.faults.map(({ group }) => group)),
    );
    expect(totals["messages acknowledged"]).toBeGreaterThan(1_000);
  } finally {
    rmSync(dataDirectory, { recursive: true, force: true });
  }
});
