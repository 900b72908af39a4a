// How fast messages are accepted, as ratios to what Postgres itself does one row a transaction. In each round, one
// after the other: pgbench (best of 8, 16 and 64 clients), the batch function called directly, and HTTP with a token
// through wrk, at 64 and at 256 callers; random conversations out of 10,000. Medians of the rounds are printed.
// A fast wrong answer is a failure: numbers must be 1..n and every accepted message must be there.
//
// Arrives: nothing. Leaves: a table on standard output. Everything it starts is stopped again.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readOptions } from "../deploy/local/options.ts";
import { startServices } from "../deploy/local/services.ts";
import { collectorDefaults, openCollector } from "../src/ingest/collector.ts";
import { openPostgres, type Postgres } from "../src/platform/postgres.ts";
import {
  createConversations,
  type Prepared,
  prepareDatabase,
  userToken,
  wrongConversations,
} from "./prepare.ts";

const help = `Usage: bun bench/ingest.ts [--rounds 5] [--seconds 5] [--roles api]

How fast messages are accepted, as ratios to what Postgres itself does one row a transaction. Needs pgbench and wrk.`;

const { rounds, seconds, roles } = readOptions(help, { rounds: 5, seconds: 5, roles: "api" });
const drainMsMax = 60_000;
const callerCounts = [64, 256];
const text = "0123456789012345678901234567890123456789";

for (const tool of ["pgbench", "wrk"]) {
  if (Bun.which(tool) === null) {
    console.error(`${tool} is not installed; on Debian: apt-get install postgresql-contrib wrk`);
    process.exit(1);
  }
}

const directory = await mkdtemp(join(tmpdir(), "chat4all-bench-"));
const services = await startServices({
  dataDirectory: directory,
  report: (line) => console.error(line),
  forTests: true,
});
try {
  await run();
} finally {
  await services.stop();
  await rm(directory, { recursive: true, force: true });
}

async function run(): Promise<void> {
  const prepared = await prepareDatabase(services, roles);
  await using postgres = pool(prepared.databaseUrl, 2);
  const conversations = await createConversations(postgres, prepared.partitions);
  await Bun.write(join(directory, "ids"), `${conversations.join("\n")}\n`);
  await using server = await prepared.startServer();

  const results = new Map<string, number[]>();
  const note = (name: string, perSecond: number) => {
    results.set(name, [...(results.get(name) ?? []), perSecond]);
    console.error(`  ${name}: ${Math.round(perSecond)}/s`);
  };
  for (let round = 1; round <= rounds; round += 1) {
    console.error(`round ${round} of ${rounds}`);
    let best = 0;
    for (const clients of [8, 16, 64]) {
      await reset(postgres);
      best = Math.max(best, await pgbench(prepared, clients));
    }
    note("pgbench, best", best);
    for (const callers of callerCounts) {
      await reset(postgres);
      note(`function, ${callers}`, await direct(prepared, conversations, callers));
    }
    for (const connections of callerCounts) {
      await reset(postgres);
      note(`HTTP, ${connections}`, await http(server.url, prepared, postgres, connections));
    }
  }
  await reset(postgres);
  print(results);
}

// Each measurement is judged, and the next one starts from the same state: no messages, statistics known. With the
// roles that empty the outbox it starts when they have, and what was stored stays: they know the numbers by now.
async function reset(postgres: Postgres): Promise<void> {
  const wrong = await wrongConversations(postgres);
  if (wrong > 0) throw new Error(`${wrong} conversations have a gap or a repeat in their numbers`);
  if (roles.includes("outbox")) {
    const drainedBy = performance.now() + drainMsMax;
    while ((await postgres.query("select from outbox limit 1")).length > 0) {
      if (performance.now() > drainedBy) throw new Error(`the outbox was not empty after ${drainMsMax} ms`);
      await Bun.sleep(100);
    }
  } else {
    await postgres.script("truncate messages, outbox");
    await postgres.script("update conversations set last_sequence_number = 0");
  }
  await postgres.script("vacuum (analyze) conversations");
}

async function pgbench(prepared: Prepared, clients: number): Promise<number> {
  const script = join(import.meta.dir, "pgbench-single-row.sql");
  const output =
    await Bun.$`pgbench -n -M prepared -f ${script} -c ${clients} -j 2 -T ${seconds} ${prepared.databaseUrl}`.text();
  const tps = /tps = ([\d.]+)/.exec(output)?.[1];
  if (tps === undefined || !/number of failed transactions: 0 /.test(output)) throw new Error(output);
  return Number(tps);
}

async function direct(prepared: Prepared, conversations: string[], callers: number): Promise<number> {
  await using postgres = pool(prepared.databaseUrl, collectorDefaults.batchesMax);
  const collector = openCollector(postgres, collectorDefaults, () => undefined);
  const startedAt = performance.now();
  const endsAt = startedAt + seconds * 1000;
  let accepted = 0;
  const caller = async () => {
    while (performance.now() < endsAt) {
      const { outcome } = await collector.accept({
        conversationId: conversations[Math.floor(Math.random() * conversations.length)] as string,
        senderId: "alice",
        messageId: crypto.randomUUID(),
        payload: JSON.stringify({ type: "text", text }),
        metadata: null,
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        tokenIds: ["bench"],
      });
      if (outcome !== "accepted") throw new Error(`a message was ${outcome}`);
      accepted += 1;
    }
  };
  await Promise.all(Array.from({ length: callers }, caller));
  return (accepted * 1000) / (performance.now() - startedAt);
}

async function http(
  url: string,
  prepared: Prepared,
  postgres: Postgres,
  connections: number,
): Promise<number> {
  const runId = Buffer.from(crypto.getRandomValues(new Uint8Array(4))).toString("hex");
  const script = join(import.meta.dir, "post-message.lua");
  const environment = {
    ...process.env,
    TOKEN: await userToken(prepared),
    IDS: join(directory, "ids"),
    RUN: runId,
  };
  const output = await Bun.$`wrk -t 2 -c ${connections} -d ${seconds}s --latency -s ${script} ${url}`
    .env(environment)
    .text();
  const summary = JSON.parse(output.trim().split("\n").at(-1) ?? "{}");
  if (summary.refused > 0 || summary.socket_errors > 0) throw new Error(output);
  const [stored] = await postgres.query<{ count: number }>(
    "select count(*) from messages where message_id between $1::uuid and $2::uuid",
    [`${runId}-0000-0000-0000-000000000000`, `${runId}-ffff-ffff-ffff-ffffffffffff`],
  );
  // What was under way at the end was stored, though wrk no longer counted it.
  const surplus = (stored?.count ?? 0) - summary.requests;
  if (surplus < 0 || surplus > connections)
    throw new Error(`${summary.requests} accepted, ${stored?.count} stored`);
  return summary.requests / summary.seconds;
}

function pool(url: string, connectionsMax: number): Postgres {
  return openPostgres({
    url,
    connectionsMax,
    applicationName: "bench",
    connectTimeoutSeconds: 5,
    statementTimeoutMs: 120_000,
  });
}

function print(results: Map<string, number[]>): void {
  const base = results.get("pgbench, best") ?? [];
  console.log(
    "| | messages/s (median) | lowest to highest | times pgbench (median of rounds) |\n|---|---|---|---|",
  );
  for (const [name, figures] of results) {
    const ratios = figures.map((figure, round) => figure / (base[round] ?? Number.NaN));
    const range = `${Math.round(Math.min(...figures))} to ${Math.round(Math.max(...figures))}`;
    console.log(`| ${name} | ${Math.round(median(figures))} | ${range} | ${median(ratios).toFixed(2)} |`);
  }
}

function median(figures: number[]): number {
  const sorted = figures.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1
    ? (sorted[middle] ?? 0)
    : ((sorted[middle - 1] ?? 0) + (sorted[middle] ?? 0)) / 2;
}
