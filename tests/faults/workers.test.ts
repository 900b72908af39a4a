// Worker threads of a running node that stand still, crash, or can not work at all.
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { type Server, serve } from "../../src/serve.ts";
import type { WorkerName } from "../../workers/protocol.ts";
import { openCommander } from "../chaos/seam.ts";
import { startServer, type TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";
import { shardOf, untilRouted } from "../support/walk.ts";
import { type NodeProcess, startNode } from "../walk/node-process.ts";

setDefaultTimeout(60_000);

let server: TestServer;
/** Another node, whose workers can be harmed. */
let harmed: Server;
let hopeless: NodeProcess;
const conversationIds: string[] = [];
const tell = openCommander();
const programOf = (name: WorkerName) => new URL(`../chaos/instance-worker-${name}.ts`, import.meta.url);

beforeAll(async () => {
  server = await startServer({ ROLES: "api,outbox,router" });
  harmed = await serve(server.config, { programOf });
  // Its poller finds another number of shards in the database, each time.
  hopeless = await startNode(server.config, { ROLES: "outbox", KAFKA_PARTITIONS: "8", LOG_LEVEL: "fatal" });
  while (new Set(conversationIds.map((id) => shardOf(server.config, id))).size < 4)
    conversationIds.push(await server.makeGroup(["bob"]));
});

afterAll(async () => {
  await harmed?.drain();
  await hopeless?.[Symbol.asyncDispose]();
  await server?.[Symbol.asyncDispose]();
});

/** 3 s, and a busy machine. */
const foundMsMax = 4_000;
/** A lease of 4 s, a renewal, and a busy machine. */
const takenOverMsMax = 7_000;

test("a poller that stands still is found, and what it had is published meanwhile", async () => {
  await untilBothHaveShards();
  tell({ kind: "loop_worker", worker: "outbox-poller" });
  const harmedAtMs = performance.now();
  await postToEach();
  await until(async () => (await healthOf("outbox-poller")) === "down", "it is found");
  expect(performance.now() - harmedAtMs).toBeLessThan(foundMsMax);
  await untilPublished();
  expect(performance.now() - harmedAtMs).toBeLessThan(takenOverMsMax);
  await until(async () => (await healthOf("outbox-poller")) === "up", "it works again");
});

test("a router that stands still is found, and what it had is routed meanwhile", async () => {
  await untilRouted(server.postgres, 30_000);
  tell({ kind: "loop_worker", worker: "message-router" });
  const harmedAtMs = performance.now();
  await postToEach();
  await until(async () => (await healthOf("message-router")) === "down", "it is found");
  expect(performance.now() - harmedAtMs).toBeLessThan(foundMsMax);
  // The group waits for a member that says nothing as long as its session lasts.
  await untilRouted(server.postgres, 30_000);
});

test("workers that crash again and again come back each time", async () => {
  for (let round = 0; round < 3; round += 1) {
    await until(async () => (await healthOf("outbox-poller")) === "up", "it works");
    tell({ kind: "crash_worker", worker: "outbox-poller" });
    // It is looked for from the crash on: it is back after a tenth of a second, perhaps before all is posted.
    const found = until(async () => (await healthOf("outbox-poller")) === "down", "it is found");
    await Promise.all([postToEach(), found]);
  }
  await untilPublished();
});

test("a node whose worker can not work at all says so and ends with code 1", async () => {
  expect(await hopeless.exited).toBe(1);
  expect(hopeless.logged()).toContain("worker failed too often");
  expect(hopeless.logged()).toContain("shards_mismatch");
  expect(hopeless.logged()).toContain("the worker keeps failing; this process ends");
});

async function postToEach() {
  for (const id of conversationIds) expect((await server.post(id, "hello")).status).toBe(202);
}

async function untilBothHaveShards() {
  await until(async () => {
    const owners = await server.postgres.query(
      "select distinct owner from shard_leases where owner is not null",
    );
    return owners.length === 2;
  }, "both pollers have shards");
}

async function untilPublished() {
  await until(
    async () => (await server.postgres.query("select from outbox")).length === 0,
    "all is published",
  );
}

async function healthOf(worker: WorkerName): Promise<string> {
  const answer = await fetch(`${harmed.url}/readyz`);
  return ((await answer.json()) as { dependencies: Record<string, string> }).dependencies[worker] ?? "";
}
