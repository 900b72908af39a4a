import { checkWhole, drawSeed, readOptions } from "../../deploy/local/options.ts";
import { drive } from "./drive.ts";
import { startHostileNode, withServices } from "./node.ts";

const help = `Usage: bun run hostile [--inputs 100000] [--seed N]

Hostile requests, frames and raw bytes against a node that runs as a process, with all of its roles; then what is stored
is held against what was acknowledged. The same seed makes the same inputs.

The exit code is 1 when anything was found.`;

const { inputs, seed } = readOptions(help, { inputs: 100_000, seed: drawSeed() }, (values) =>
  checkWhole("inputs", values.inputs, 2 ** 31 - 1),
);

const isGood = await withServices(async () => {
  await using node = await startHostileNode();
  const { isGood: isPassed, report } = await drive(node, { inputs, seed, progress: console.error });
  console.log(report);
  return isPassed;
});
process.exit(isGood ? 0 : 1);
