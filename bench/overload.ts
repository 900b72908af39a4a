// What a node does with three times the load that it can take. The capacity is measured first (closed loop, several
// numbers of callers); then in each round, one after the other, the load is once and three times that capacity, in an open
// loop from a process of its own: what is accepted a second, how long that takes (from when each request was due), how
// late the node is (the answer to /healthz), and its memory.
// A fast wrong answer is a failure: every 202 must be stored, nothing else, and numbers must be 1..n.
//
// Arrives: nothing. Leaves: a table on standard output; exit code 1 if it was wrong. Everything it starts is stopped again.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readOptions } from "../deploy/local/options.ts";
import { startServices } from "../deploy/local/services.ts";
import { type Measurement, measure, median, rssOf } from "./measure.ts";
import type { LoadReport } from "./open-loop.ts";
import { type Bench, openBench, wrongConversations } from "./prepare.ts";

const help = `Usage: bun bench/overload.ts [--rounds 3] [--seconds 10] [--roles api] [--connections 6000] [--factor 3]

What a node does with three times the load that it can take.

  --apart            the load on the last core and everything else on the first (Linux), so that refusing costs the
                     load's process nothing of the node's time
  --soak-minutes N   so long three times what it accepted in the minute before: a line a minute with its memory, then
                     the slope`;

const values = readOptions(help, {
  rounds: 3,
  seconds: 10,
  roles: "api",
  connections: 6_000,
  factor: 3,
  apart: false,
  "soak-minutes": 0,
});
const { seconds, factor } = values;
const callersOfClosedLoops = [64, 256, 512];
const loadCore = values.apart ? navigator.hardwareConcurrency - 1 : undefined;
// What is started from here on inherits it.
if (values.apart) await Bun.$`taskset --all-tasks --cpu-list --pid 0 ${process.pid}`.quiet();

const directory = await mkdtemp(join(tmpdir(), "chat4all-bench-"));
const services = await startServices({
  dataDirectory: directory,
  report: (line) => console.error(line),
  forTests: true,
  // Where nothing publishes, Kafka is not started.
  given: /outbox|router/.test(values.roles) ? {} : { kafkaBrokers: "" },
});
try {
  await run();
} finally {
  await services.stop();
  await rm(directory, { recursive: true, force: true });
}

async function run(): Promise<void> {
  await using bench = await openBench(services, directory, values.roles);
  const capacity = await findCapacity(bench);
  console.error(`capacity: ${Math.round(capacity)}/s`);
  if (values["soak-minutes"] === 0) await compare(bench, capacity);
  else await soak(bench, capacity, values["soak-minutes"]);
  const wrong = await wrongConversations(bench.postgres);
  if (wrong > 0) throw new Error(`${wrong} conversations have a gap or a repeat in their numbers`);
  console.log("\nEvery 202 is stored and nothing else is; the numbers of every conversation are 1..n.");
}

async function findCapacity(bench: Bench): Promise<number> {
  let best = 0;
  await measure(bench, { rate: 0, seconds: 3, connections: 64, core: loadCore });
  for (const connections of callersOfClosedLoops) {
    const load = { rate: 0, seconds: Math.min(seconds, 5), connections, core: loadCore };
    const found = await measure(bench, load);
    console.error(`  closed loop, ${connections} callers: ${perSecond(found)}/s`);
    best = Math.max(best, found.accepted / found.seconds);
  }
  return best;
}

async function compare(bench: Bench, capacity: number): Promise<void> {
  const byLoad = new Map<string, Measurement[]>([
    ["1", []],
    [String(factor), []],
  ]);
  for (let round = 1; round <= values.rounds; round += 1) {
    console.error(`round ${round} of ${values.rounds}`);
    for (const [load, measurements] of byLoad) {
      const rate = Math.round(capacity * Number(load));
      const offered = { rate, seconds, connections: values.connections, core: loadCore };
      const found = await measure(bench, offered);
      console.error(`  ${load}x: ${JSON.stringify(found)}`);
      measurements.push(found);
    }
  }
  const peak = Math.max(
    capacity,
    ...[...byLoad.values()].flat().map((found) => found.accepted / found.seconds),
  );
  console.log(
    `capacity (closed loop): ${Math.round(capacity)}/s; highest of the run: ${Math.round(peak)}/s\n`,
  );
  console.log(
    "| load | sent/s | accepted/s | refused/s | unsent/s | accepted p50 | p99 | refused p99 | /healthz p99 | RSS |\n|---|---|---|---|---|---|---|---|---|---|",
  );
  for (const [load, found] of byLoad) {
    const of = (pick: (measurement: Measurement) => number) => median(found.map(pick));
    const cells = [
      `${load}x`,
      of((m) => m.sent / m.seconds),
      of((m) => m.accepted / m.seconds),
      of((m) => m.refused / m.seconds),
      of((m) => m.unsent / m.seconds),
      `${of((m) => m.acceptedP50Ms).toFixed(0)} ms`,
      `${of((m) => m.acceptedP99Ms).toFixed(0)} ms`,
      `${of((m) => m.refusedP99Ms).toFixed(0)} ms`,
      `${of((m) => m.healthP99Ms).toFixed(0)} ms`,
      `${of((m) => m.rssMiB).toFixed(0)} MiB`,
    ];
    console.log(
      `| ${cells.map((cell) => (typeof cell === "number" ? Math.round(cell) : cell)).join(" | ")} |`,
    );
  }
  const overloaded = byLoad.get(String(factor)) ?? [];
  const shares = overloaded.map((found) => found.accepted / found.seconds / peak);
  console.log(
    `\naccepted at ${factor}x of the highest: ${shares.map((share) => `${(100 * share).toFixed(0)} %`).join(", ")}`,
  );
}

async function soak(bench: Bench, capacity: number, minutes: number): Promise<void> {
  console.log(`capacity ${Math.round(capacity)}/s; ${factor} times what is accepted, for ${minutes} minutes`);
  const rssMiB: number[] = [];
  let minute: LoadReport[] = [];
  const onSecond = async (report: LoadReport, setRate: (rate: number) => void) => {
    minute.push(report);
    if (minute.length < 60) return;
    const mean = (pick: (of: LoadReport) => number) =>
      Math.round(minute.reduce((sum, of) => sum + pick(of), 0) / minute.length);
    const worstP99Ms = Math.max(...minute.map((of) => of.acceptedP99Ms));
    const accepted = mean((of) => of.accepted);
    rssMiB.push(await rssOf(bench.server.pid));
    console.log(
      `minute ${rssMiB.length}: RSS ${rssMiB.at(-1)?.toFixed(0)} MiB; sent ${mean((of) => of.sent)}/s, accepted ${accepted}/s, ` +
        `refused ${mean((of) => of.refused)}/s, unsent ${mean((of) => of.unsent)}/s; worst second's accepted p99 ${worstP99Ms.toFixed(0)} ms`,
    );
    setRate(Math.max(accepted, capacity / 10) * factor);
    minute = [];
  };
  const load = {
    rate: capacity * factor,
    seconds: minutes * 60,
    connections: values.connections,
    core: loadCore,
  };
  console.log(JSON.stringify(await measure(bench, load, onSecond)));
  const third = Math.max(1, Math.floor(rssMiB.length / 3));
  const [first, last] = [rssMiB.slice(0, third), rssMiB.slice(-third)].map((some) => median(some).toFixed(0));
  console.log(
    `RSS: median of the first third ${first} MiB, of the last ${last} MiB; slope ${(slope(rssMiB) * 60).toFixed(1)} MiB an hour ` +
      `(least squares over ${rssMiB.length} minutes)`,
  );
}

function perSecond({ accepted, seconds: taken }: LoadReport): number {
  return Math.round(accepted / taken);
}

/** Of the best line through figures that are one apart. */
function slope(figures: number[]): number {
  const n = figures.length;
  const meanX = (n - 1) / 2;
  const meanY = figures.reduce((sum, y) => sum + y, 0) / n;
  let above = 0;
  let below = 0;
  for (const [x, y] of figures.entries()) {
    above += (x - meanX) * (y - meanY);
    below += (x - meanX) ** 2;
  }
  return below === 0 ? 0 : above / below;
}
