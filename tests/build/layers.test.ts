// The layers that .oxlintrc.json draws: each forbidden import is tried, and each kind of allowed one.
import { beforeAll, expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

const root = resolve(import.meta.dir, "../..");

/** [file, a line in it] */
type Case = readonly [string, string];

const forbidden: readonly Case[] = [
  ["src/model/event.ts", `import "../platform/json.ts";`],
  ["src/platform/log.ts", `import "../ingest/collector.ts";`],
  ["src/platform/log.ts", `import "../config.ts";`],
  ["src/platform/redis.ts", `import type { Hub } from "../deliver/hub.ts";`],
  ["src/platform/kafka/client.ts", `import "../../outbox/poller.ts";`],
  ["src/platform/log.ts", `import "../../workers/outbox-poller.ts";`],
  ["src/platform/log.ts", `import "kafkajs";`],
  ["src/platform/redis.ts", `import "postgres";`],
  ["src/platform/postgres.ts", `import "ioredis";`],
  ["src/platform/kafka/client.ts", `import "ioredis";`],
  ["src/identity/tokens.ts", `import "../ingest/collector.ts";`],
  ["src/ingest/collector.ts", `import "../deliver/hub.ts";`],
  ["src/ingest/collector.ts", `export * from "../deliver/hub.ts";`],
  ["src/ingest/collector.ts", `await import("../app.ts");`],
  ["src/ingest/collector.ts", `import "postgres";`],
  ["src/deliver/hub.ts", `import "../ingest/collector.ts";`],
  ["src/deliver/hub.ts", `import "ioredis";`],
  ["src/outbox/poller.ts", `import "../router/router.ts";`],
  ["src/outbox/poller.ts", `import "kafkajs";`],
  ["src/router/router.ts", `import "../outbox/poller.ts";`],
  ["src/router/router.ts", `import "../cli/serve.ts";`],
  ["src/serve.ts", `import "../workers/outbox-poller.ts";`],
  ["src/cli/serve.ts", `import "kafkajs/src/index.js";`],
  ["workers/outbox-poller.ts", `import "../src/serve.ts";`],
  ["workers/outbox-poller.ts", `import "../src/cli/serve.ts";`],
  ["workers/outbox-poller.ts", `import "kafkajs";`],
  ["workers/outbox-poller.ts", `export const level = process.env.LOG_LEVEL;`],
  ["src/serve.ts", `export const level = Bun.env["LOG_LEVEL"];`],
  ["src/serve.ts", `console.log("ready");`],
];

const allowed: readonly Case[] = [
  ["src/platform/postgres.ts", `import "postgres";`],
  ["src/platform/redis.ts", `import "ioredis";`],
  ["src/platform/kafka.ts", `import "kafkajs";`],
  ["src/platform/kafka/client.ts", `import "kafkajs/src/index.js";`],
  ["src/platform/kafka/client.ts", `import "../json.ts";`],
  ["src/platform/migrate.ts", `import "../../sql/migrations/0001_tables.sql";`],
  ["src/platform/channel.ts", `import type { WorkerName } from "../../workers/protocol.ts";`],
  ["src/ingest/collector.ts", `import "../model/event.ts";`],
  ["src/ingest/collector.ts", `import "../platform/log.ts";`],
  ["src/ingest/routes.ts", `import "../identity/tokens.ts";`],
  ["src/ingest/collector.ts", `import "../../sql/deliver/find.sql";`],
  ["src/outbox/poller.ts", `import "./lease.ts";`],
  ["src/serve.ts", `import "./ingest/collector.ts";`],
  ["src/config.ts", `export const level = process.env.LOG_LEVEL;`],
  ["src/cli/serve.ts", `console.log("ready");`],
  ["workers/outbox-poller.ts", `import "../src/outbox/poller.ts";`],
];

let complaints: Map<string, string>;

beforeAll(async () => {
  complaints = await lint([...forbidden, ...allowed]);
});

test.each(forbidden)("%s may not say %s", (file, line) => {
  expect(complaints.get(`${file} ${line}`)).toBeDefined();
});

test.each(allowed)("%s may say %s", (file, line) => {
  expect(complaints.get(`${file} ${line}`)).toBeUndefined();
});

/** The first complaint about each case's line, by `file line`: all cases are linted at once, in a folder of their own. */
async function lint(cases: readonly Case[]): Promise<Map<string, string>> {
  await using folder = await temporaryFolder();
  const linesOf = Map.groupBy(cases, ([file]) => file);
  for (const [file, ofFile] of linesOf) {
    await Bun.write(join(folder.path, file), ofFile.map(([, line]) => `${line}\n`).join(""));
  }
  // Types would need the real files, and these rules do without.
  const { options: _, ...configuration } = await Bun.file(join(root, ".oxlintrc.json")).json();
  await Bun.write(join(folder.path, ".oxlintrc.json"), JSON.stringify(configuration));

  const oxlint = join(root, "node_modules/.bin/oxlint");
  const { stdout } = Bun.spawnSync([process.execPath, oxlint, "--format", "unix"], { cwd: folder.path });
  const found = new Map<string, string>();
  for (const [, file = "", number, complaint = ""] of stdout
    .toString()
    .matchAll(/^([^:]+):(\d+):\d+: (.*)$/gm)) {
    const line = linesOf.get(file)?.[Number(number) - 1]?.[1];
    // Other rules may complain of these lines too, such as that of unassigned imports.
    if (/no-restricted|no-console/.test(complaint)) found.set(`${file} ${line}`, complaint);
  }
  return found;
}

async function temporaryFolder(): Promise<{ path: string } & AsyncDisposable> {
  const path = await mkdtemp(join(tmpdir(), "chat4all-layers-"));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}
