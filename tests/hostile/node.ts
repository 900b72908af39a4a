// A node as it runs outside tests, a process of its own, and what a hostile run asks of it.
import { readdirSync, readFileSync } from "node:fs";
import { resolve } from "node:path";
import { startServices } from "../../deploy/local/services.ts";
import { type Config, readConfig } from "../../src/config.ts";
import { createClient } from "../../src/identity/clients.ts";
import { prepareShards } from "../../src/outbox/shards.ts";
import { ensureTopics } from "../../src/platform/kafka.ts";
import type { Postgres } from "../../src/platform/postgres.ts";
import { topicsOf } from "../../src/topics.ts";
import { connect, makeDatabase } from "../support/database.ts";
import { callsOf } from "../support/server.ts";
import { startNode } from "../walk/node-process.ts";

type Calls = ReturnType<typeof callsOf>;

/** A running node with a database, topics and keys of its own. */
export interface HostileNode extends Calls, AsyncDisposable {
  url: string;
  config: Config;
  /** Its database, to look into. */
  postgres: Postgres;
  makeClient(scopes: Parameters<typeof createClient>[1]["scopes"]): Promise<{ id: string; secret: string }>;
  /** Resident memory of its process, in bytes; undefined when that is gone, or is not told here. */
  residentBytes(): number | undefined;
  /** Files and connections that its process has open; undefined as above. */
  openFiles(): number | undefined;
  /** SIGTERM; its exit code. */
  stop(): Promise<number>;
}

/** Starts it on the servers of TEST_*; `roles` as `--roles` has them. Rate limits are off. */
export async function startHostileNode(roles = "api,outbox,router,backfill"): Promise<HostileNode> {
  const database = await makeDatabase();
  const name = `hostile-${crypto.randomUUID().slice(0, 8)}`;
  const config = readConfig({
    PORT: "0",
    JWT_SECRET: "a secret for hostile runs only, of 32 characters or more",
    KAFKA_PARTITIONS: "4",
    CHANNELS: "support,audit",
    RATE_LIMIT_USER_PER_SECOND: "0",
    RATE_LIMIT_CONVERSATION_PER_SECOND: "0",
    LOG_LEVEL: "error",
    DATABASE_URL: database.url,
    KAFKA_BROKERS: process.env["TEST_KAFKA_BROKERS"],
    REDIS_URL: process.env["TEST_REDIS_URL"],
    KAFKA_TOPIC_PREFIX: name,
    REDIS_PREFIX: `${name}:`,
  });
  const postgres = connect(database.url, 2);
  await prepareShards(postgres, config.KAFKA_PARTITIONS);
  await ensureTopics({ brokers: config.KAFKA_BROKERS, clientId: "test" }, topicsOf(config));
  const node = await startNode(config, {}, ["--roles", roles]);
  return {
    url: node.url,
    config,
    postgres,
    ...callsOf(node.url, config),
    makeClient: (scopes) => createClient(postgres, { name: "hostile", scopes }),
    residentBytes: () => residentBytesOf(node.pid),
    openFiles: () => openFilesOf(node.pid),
    stop: async () => (await node.stop()).code,
    async [Symbol.asyncDispose]() {
      await node[Symbol.asyncDispose]();
      await postgres.close();
      await database.drop();
    },
  };
}

/** Runs the work on the servers that TEST_* name, or on some that are started for it, empty, and stopped after it. */
export async function withServices<Result>(work: () => Promise<Result>): Promise<Result> {
  if (process.env["TEST_DATABASE_URL"] !== undefined) return await work();
  const services = await startServices({
    dataDirectory: resolve(import.meta.dir, "../../.chat4all/hostile"),
    report: (line) => console.error(line),
    forTests: true,
  });
  process.env["TEST_DATABASE_URL"] = services.databaseUrl;
  process.env["TEST_KAFKA_BROKERS"] = services.kafkaBrokers;
  process.env["TEST_REDIS_URL"] = services.redisUrl;
  try {
    return await work();
  } finally {
    await services.stop();
  }
}

function residentBytesOf(pid: number): number | undefined {
  try {
    const kib = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
    return kib === undefined ? undefined : Number(kib) * 1024;
  } catch {
    return undefined;
  }
}

function openFilesOf(pid: number): number | undefined {
  try {
    return readdirSync(`/proc/${pid}/fd`).length;
  } catch {
    return undefined;
  }
}
