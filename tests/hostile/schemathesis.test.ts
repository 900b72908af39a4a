// A short run of `bun run schemathesis`. The first one on a machine installs it, which takes most of the time.
import { expect, test } from "bun:test";
import { startHostileNode } from "./node.ts";
import { runSchemathesis } from "./schemathesis.ts";

const installMsMax = 240_000;

test(
  "schemathesis finds no answer that is a server's error, or not as the document says",
  async () => {
    await using node = await startHostileNode("api");
    const outcome = await runSchemathesis(node, { seed: 20_261, examples: 5 });
    if (!outcome.isPassed) throw new Error(outcome.output);
    expect(outcome.operations.tested).toBeGreaterThan(15);
    expect(outcome.cases).toBeGreaterThan(500);
    expect(await node.stop()).toBe(0);
  },
  installMsMax,
);
