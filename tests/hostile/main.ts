// `bun run hostile [--inputs N] [--seed S]`: hostile requests, frames and raw bytes against a node that runs as a
// process, with all of its roles; then the verdict. The same seed makes the same inputs.
import { parseArgs } from "node:util";
import { drive } from "./drive.ts";
import { startHostileNode, withServices } from "./node.ts";

const { values } = parseArgs({
  options: { inputs: { type: "string", default: "100000" }, seed: { type: "string" } },
});
const inputs = Number(values.inputs);
const seed = Number(values.seed ?? crypto.getRandomValues(new Uint32Array(1))[0]) | 0;
if (!(inputs > 0)) {
  console.error("--inputs must be a number");
  process.exit(2);
}

const isGood = await withServices(async () => {
  await using node = await startHostileNode();
  const { isGood: isPassed, report } = await drive(node, { inputs, seed, progress: console.error });
  console.log(report);
  return isPassed;
});
process.exit(isGood ? 0 : 1);
