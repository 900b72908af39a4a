// Whether Kafka writers lose what was acknowledged to them, under faults: kafkajs as its documentation advises, and
// our publisher, side by side on three brokers of this run's own. The faults follow from the seed.
//
// Arrives: nothing. Leaves: progress on standard error, a table on standard output. Exit code 0 when our publisher
// lost and reordered nothing, 1 when it did, 2 for wrong arguments, 130 when interrupted. Everything it starts is
// stopped again.

import { onInterruption } from "../../deploy/local/interruption.ts";
import { checkWhole, drawSeed, readOptions } from "../../deploy/local/options.ts";
import { ensureTopics, readTopic } from "../../src/platform/kafka.ts";
import { pause } from "../../src/platform/pause.ts";
import { passAll } from "../support/fault-proxy.ts";
import { startProxiedCluster } from "../support/kafka-cluster.ts";
import { seededRandom } from "../support/random.ts";
import { openInjector } from "./faults.ts";
import { judge, type Verdict } from "./judge.ts";
import { type FaultKind, faultKinds, type PlannedFault, planFaults } from "./schedule.ts";
import { numberOf, openBareWriter, openOurWriter, type Writer } from "./writers.ts";

const help = `Usage: bun run kafka-fuzz [--seconds 120] [--seed N]

Three Kafka brokers, and two programs that write to them while brokers are killed and paused, leaders moved, answers
lost and connections cut: kafkajs alone, and our publisher. Then both logs are held against what was acknowledged.

  --seconds N   how long faults go on (1 to 3600)
  --seed N      which faults (1 to 2147483647); the same seed plans the same faults

The exit code is 1 when our publisher lost or reordered a message.`;

const partitionCount = 12;
const settleMs = 90_000;
const progressMs = 5_000;

const { seconds, seed } = readOptions(help, { seconds: 120, seed: 1 + (drawSeed() % 999_999) }, (values) => {
  checkWhole("seconds", values.seconds, 3_600);
  checkWhole("seed", values.seed, 2 ** 31 - 1);
});
const interrupted = onInterruption(() => say("stopping"));
say(`${seconds} s of faults with seed ${seed}; again with --seconds ${seconds} --seed ${seed}`);
const cluster = await startProxiedCluster({ clientId: "fuzz", report: say, signal: interrupted });
try {
  process.exitCode = await fuzz();
} finally {
  cluster.setFault(passAll);
  await cluster.stop();
}
process.exit();

async function fuzz(): Promise<number> {
  const topics = { bare: `bare-${crypto.randomUUID()}`, ours: `ours-${crypto.randomUUID()}` };
  const names = Object.values(topics);
  await ensureTopics(
    cluster.settings,
    names.map((name) => ({ name, partitions: partitionCount })),
  );
  const common = { settings: cluster.settings, partitionCount };
  const bare = openBareWriter({ ...common, topic: topics.bare, random: seededRandom(seed + 1) });
  const ours = openOurWriter({ ...common, topic: topics.ours, random: seededRandom(seed + 2) });

  const stop = new AbortController();
  const giveUp = new AbortController();
  const writing = [bare, ours].map((writer) => writer.run(stop.signal, giveUp.signal));
  const startedAtMs = performance.now();
  const progress = setInterval(() => showProgress(startedAtMs, [bare, ours]), progressMs);
  const done = await injectAll(names);
  stop.abort();
  cluster.setFault(passAll);
  say("healed; waiting for the last acknowledgements");
  const limit = setTimeout(() => giveUp.abort(), settleMs);
  await Promise.all(writing);
  clearTimeout(limit);
  clearInterval(progress);
  if (interrupted.aborted) return 130;

  say("reading both topics");
  const [bareVerdict, ourVerdict] = [await judgeWriter(bare), await judgeWriter(ours)];
  showTable([
    [bare, bareVerdict],
    [ours, ourVerdict],
  ]);
  showFaults(done);
  return conclude(bareVerdict, ourVerdict, giveUp.signal.aborted);
}

/** Resolves when the last fault is over. Answers those that came about. */
async function injectAll(topics: string[]): Promise<PlannedFault[]> {
  const injector = openInjector(cluster, topics, interrupted);
  const startedAtMs = performance.now();
  const done: PlannedFault[] = [];
  const running: Promise<void>[] = [];
  for (const fault of planFaults(seed, seconds, partitionCount)) {
    await pauseUntil(startedAtMs + fault.atMs);
    if (interrupted.aborted) break;
    say(describe(fault));
    const injecting = injector.inject(fault).then(() => void done.push(fault));
    running.push(
      injecting.catch((error: unknown) => say(`  ${fault.kind} did not come about: ${String(error)}`)),
    );
  }
  await Promise.all(running);
  await pauseUntil(startedAtMs + seconds * 1_000);
  return done;
}

function pauseUntil(timeMs: number): Promise<void> {
  return pause(Math.max(0, timeMs - performance.now()), interrupted);
}

async function judgeWriter(writer: Writer): Promise<Verdict> {
  const records = await readTopic(cluster.settings, writer.topic);
  const log = records.map(({ partition, value }) => ({ partition, number: numberOf(value) }));
  return judge(writer.acknowledged, log);
}

function describe({ kind, atMs, durationMs, brokers, partitions }: PlannedFault): string {
  const time = `${(atMs / 1_000).toFixed(1)} s`.padStart(8);
  const duration = durationMs > 0 ? `, ${durationMs} ms` : "";
  return `${time}  ${kind} (brokers ${brokers.join(" ")}, partitions ${partitions.join(" ")}${duration})`;
}

function showProgress(startedAtMs: number, writers: Writer[]): void {
  const counts = writers.map(
    ({ name, acknowledged, doubts }) => `${name} ${acknowledged.length} acknowledged, ${doubts()} doubts`,
  );
  say(`${Math.round((performance.now() - startedAtMs) / 1_000)} s: ${counts.join("; ")}`);
}

function showTable(rows: [Writer, Verdict][]): void {
  const columns = ["acknowledged", "lost", "doubled", "reordered"] as const;
  console.log(`| seed ${seed}, ${seconds} s | ${columns.join(" | ")} |`);
  console.log("|---|---:|---:|---:|---:|");
  for (const [writer, verdict] of rows) {
    console.log(`| ${writer.name} | ${columns.map((column) => verdict[column]).join(" | ")} |`);
  }
}

function showFaults(done: PlannedFault[]): void {
  const counts = faultKinds.map((kind: FaultKind) => {
    const count = done.filter((fault) => fault.kind === kind).length;
    return `${kind.replaceAll("_", " ")} ${count}`;
  });
  console.log(`\n${done.length} faults: ${counts.join(", ")}`);
}

function conclude(bare: Verdict, ours: Verdict, gaveUp: boolean): number {
  if (gaveUp) console.log(`A writer was still waiting ${settleMs / 1_000} s after the last fault.`);
  if (bare.lost === 0)
    console.log("kafkajs alone lost nothing in this run: it proves less than a longer one.");
  if (ours.lost > 0 || ours.reordered > 0) {
    console.log("Our publisher lost or reordered messages.");
    return 1;
  }
  console.log("Our publisher lost and reordered nothing.");
  return 0;
}

function say(line: string): void {
  console.error(line);
}
