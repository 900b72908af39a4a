// Worker threads that are ended in the middle of their work, on real servers.
import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { type Config, topicNames } from "../../src/config.ts";
import { readTopic } from "../../src/platform/kafka.ts";
import type { Postgres } from "../../src/platform/postgres.ts";
import { workerUrl } from "../../src/platform/worker-url.ts";
import type { WorkerName, WorkerToMain } from "../../workers/protocol.ts";
import { connect, makeDatabase, type TestDatabase } from "../support/database.ts";
import { type FaultProxy, startFaultProxy } from "../support/fault-proxy.ts";
import { until } from "../support/until.ts";
import {
  firstOccurrences,
  kafkaOf,
  makeConfig,
  makeConversation,
  numbersOf,
  post,
  untilRouted,
  upTo,
} from "../support/walk.ts";

setDefaultTimeout(60_000);

const conversationCount = 100;
const messagesEach = 60;

let database: TestDatabase;
let postgres: Postgres;
let proxy: FaultProxy;
let config: Config;
let ids: string[];
const running: Worker[] = [];

beforeEach(async () => {
  database = await makeDatabase();
  postgres = connect(database.url, 2);
  config = await makeConfig(database.url);
  proxy = await startFaultProxy({ target: Number(new URL(database.url).port) });
  ids = await Promise.all(upTo(conversationCount).map(() => makeConversation(postgres, config)));
  for (const _ of upTo(messagesEach)) await post(postgres, ids);
});

afterEach(async () => {
  for (const worker of running.splice(0)) worker.terminate();
  await proxy.stop();
  await postgres.close();
  await database.drop();
});

/** Starts a worker's program as a process of its own instance; its Postgres is behind the proxy. */
async function start(name: WorkerName): Promise<Worker> {
  const worker = new Worker(workerUrl(name));
  running.push(worker);
  const ready = Promise.withResolvers<void>();
  worker.addEventListener("message", (event: MessageEvent<WorkerToMain>) => {
    if (event.data.kind === "ready") ready.resolve();
  });
  const url = new URL(database.url);
  url.port = String(proxy.port);
  const behindProxy = { ...config, DATABASE_URL: url.href };
  worker.postMessage({ kind: "start", instanceId: crypto.randomUUID(), config: behindProxy });
  await ready.promise;
  return worker;
}

/** What is sent to Postgres with this text never arrives; resolves when it is sent. */
function swallow(text: string): Promise<void> {
  const swallowed = Promise.withResolvers<void>();
  proxy.fault = ({ direction, bytes }) => {
    if (direction !== "request" || !bytes.includes(text)) return "pass";
    swallowed.resolve();
    return "drop";
  };
  return swallowed.promise;
}

async function numbersIn(topic: string) {
  return numbersOf(await readTopic(kafkaOf(config), topic));
}

function expectAllInOrder(numbers: Map<string, number[]>) {
  expect(numbers.size).toBe(conversationCount);
  for (const found of numbers.values()) expect(firstOccurrences(found)).toEqual(upTo(messagesEach));
}

function countOf(numbers: Map<string, number[]>): number {
  return [...numbers.values()].reduce((count, found) => count + found.length, 0);
}

const messageCount = conversationCount * messagesEach;

test("publishes everything in order after a poller was ended between Kafka's answer and the removal", async () => {
  const removing = swallow("delete from outbox");
  const killed = await start("outbox-poller");
  await removing;
  killed.terminate();
  proxy.fault = () => "pass";

  await start("outbox-poller");
  await untilPublished();
  const numbers = await numbersIn(topicNames(config).outbox);
  expectAllInOrder(numbers);
  expect(countOf(numbers)).toBeGreaterThan(messageCount);
});

test("publishes everything in order after a poller was ended at any moment", async () => {
  for (const delayMs of [30, 60, 90]) {
    const killed = await start("outbox-poller");
    await until(
      async () => (await postgres.query("select from shard_leases where owner is not null")).length > 0,
      "a shard has an owner",
    );
    await Bun.sleep(delayMs);
    killed.terminate();
    await postgres.query("update shard_leases set expires_at = '-infinity'");
  }
  await start("outbox-poller");
  await untilPublished();
  expectAllInOrder(await numbersIn(topicNames(config).outbox));
});

test("publishes everything in order while its connections to Postgres are cut again and again", async () => {
  let cutCount = 0;
  const cutting = setInterval(() => {
    cutCount += 1;
    proxy.endConnections("reset");
  }, 40);
  await start("outbox-poller");
  await until(() => cutCount >= 25, "25 connections were cut");
  clearInterval(cutting);
  await untilPublished();
  expectAllInOrder(await numbersIn(topicNames(config).outbox));
});

test("routes everything in order after a router was ended between forwarding and committing", async () => {
  const poller = await start("outbox-poller");
  await untilPublished();
  poller.terminate();

  const raising = swallow("insert into routed");
  const killed = await start("message-router");
  await raising;
  killed.terminate();
  proxy.fault = () => "pass";
  expect(await postgres.query("select from routed")).toHaveLength(0);

  await start("message-router");
  await untilRouted(postgres);
  const numbers = await numbersIn(topicNames(config).events);
  expectAllInOrder(numbers);
  expect(countOf(numbers)).toBeGreaterThan(messageCount);
});

function untilPublished(): Promise<void> {
  return until(
    async () => (await postgres.query("select from outbox limit 1")).length === 0,
    "the outbox is empty",
  );
}
