// What Kafka's absence does to people, and how fast the outbox empties afterwards. A node with all roles takes a steady
// load (open loop, from a process of its own) with Kafka there, then with its process stopped (SIGSTOP), then with Kafka
// back while the outbox empties. Everything is judged as in overload.ts: each 202 is stored once, numbers are 1..n.
//
// Arrives: nothing. Leaves: a table on standard output; exit code 1 if it was wrong. Everything it starts is stopped again.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startKafkaCluster } from "../deploy/local/kafka.ts";
import { readOptions } from "../deploy/local/options.ts";
import { startPostgres } from "../deploy/local/postgres.ts";
import { startRedis } from "../deploy/local/redis.ts";
import type { Postgres } from "../src/platform/postgres.ts";
import { type Measurement, measure, rssOf } from "./measure.ts";
import { openBench, wrongConversations } from "./prepare.ts";

const help = `Usage: bun bench/kafka-away.ts [--rate 1000] [--before-seconds 20] [--away-seconds 120]

What Kafka's absence does to people, and how fast the outbox empties afterwards.`;

const values = readOptions(help, { rate: 1_000, "before-seconds": 20, "away-seconds": 120 });
const { rate } = values;
const connections = 256;
const drainMsMax = 300_000;
const lookEveryMs = 50;

const directory = await mkdtemp(join(tmpdir(), "chat4all-bench-"));
await using started = new AsyncDisposableStack();
started.defer(() => rm(directory, { recursive: true, force: true }));
const options = { dataDirectory: directory, report: (line: string) => console.error(line), anyPort: true };
const server = await startPostgres({ ...options, mayCreateDatabases: true });
started.defer(() => server.stop());
const redis = await startRedis(options);
started.defer(() => redis.stop());
const kafka = await startKafkaCluster({ ...options, brokers: 1 });
started.defer(() => kafka.stop());
await run();

async function run(): Promise<void> {
  const services = { databaseUrl: server.url, redisUrl: redis.url, kafkaBrokers: kafka.bootstrap };
  await using bench = await openBench(services, directory, "api,outbox,router,backfill");
  const { postgres } = bench;
  const load = (seconds: number) => measure(bench, { rate, seconds, connections });

  await load(5);
  const before = await load(values["before-seconds"]);
  await untilEmpty(postgres);
  const broker = kafka.brokers[0]?.pid ?? 0;
  process.kill(broker, "SIGSTOP");
  let away: Measurement;
  try {
    away = await load(values["away-seconds"]);
  } finally {
    process.kill(broker, "SIGCONT");
  }
  const backAtMs = performance.now();
  const waited = await waiting(postgres);
  const rssMiB = await rssOf(bench.server.pid);
  const goingOn = load(values["before-seconds"]);
  const firstMs = await untilFewer(postgres, waited, backAtMs);
  const emptyMs = await untilEmpty(postgres, backAtMs);
  const after = await goingOn;
  await untilEmpty(postgres);

  console.log("| Kafka | accepted/s | accept p50 | p99 | worst |\n|---|---|---|---|---|");
  for (const [when, found] of Object.entries({ "is there": before, "is away": away, "is back": after })) {
    const { accepted, seconds, acceptedP50Ms, acceptedP99Ms, acceptedMaxMs } = found;
    const times = [acceptedP50Ms, acceptedP99Ms, acceptedMaxMs].map((ms) => `${ms.toFixed(1)} ms`);
    console.log(`| ${[when, Math.round(accepted / seconds), ...times].join(" | ")} |`);
  }
  // While the load goes on, what came meanwhile leaves as well.
  const drained = waited + (rate * emptyMs) / 1000;
  console.log(
    `\n${waited} messages waited after ${values["away-seconds"]} s, ${rssMiB.toFixed(0)} MiB resident. The first left ` +
      `${(firstMs / 1000).toFixed(2)} s after Kafka's return, the outbox was empty after ${(emptyMs / 1000).toFixed(1)} s: ` +
      `${Math.round(drained / (emptyMs / 1000))}/s, ${(drained / (emptyMs / 1000) / rate).toFixed(1)} times as fast as it filled.`,
  );
  const wrong = await wrongConversations(postgres);
  if (wrong > 0) throw new Error(`${wrong} conversations have a gap or a repeat in their numbers`);
  console.log("Every 202 is stored and nothing else is; the numbers of every conversation are 1..n.");
}

async function waiting(postgres: Postgres): Promise<number> {
  const [row] = await postgres.query<{ count: number }>(
    "select coalesce(sum(cardinality(sequence_numbers)), 0)::bigint as count from outbox",
  );
  return row?.count ?? 0;
}

/** How long after a moment fewer wait than `count`, although more come all the time. */
async function untilFewer(postgres: Postgres, count: number, sinceMs: number): Promise<number> {
  return await until(async () => (await waiting(postgres)) < count, sinceMs);
}

/** How long after a moment next to nothing waits: less than comes in a tenth of a second. */
async function untilEmpty(postgres: Postgres, sinceMs = performance.now()): Promise<number> {
  return await until(async () => (await waiting(postgres)) <= rate / 10, sinceMs);
}

async function until(isSo: () => Promise<boolean>, sinceMs: number): Promise<number> {
  while (!(await isSo())) {
    if (performance.now() - sinceMs > drainMsMax) throw new Error("the outbox does not empty");
    await Bun.sleep(lookEveryMs);
  }
  return performance.now() - sinceMs;
}
