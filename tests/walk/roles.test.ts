// One process per role: the walk goes through all of them, SIGTERM drains each, and what was acknowledged while they
// went is found at every stop, through the processes that are left.
import { expect, setDefaultTimeout, test } from "bun:test";
import type { Postgres } from "../../src/platform/postgres.ts";
import { startServer, type TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";
import { shardOf } from "../support/walk.ts";
import { type NodeProcess, startNode } from "./node-process.ts";
import { openSocketReader, openStreamReader } from "./readers.ts";
import { judgeScene, makeScene, reader, type Scene, startSending, untilWorking } from "./scene.ts";

setDefaultTimeout(120_000);

/** As the contract has it. */
const drainMsMax = 15_000;
const restarting = 1012;
/** More than are sent until every process is gone. */
const messagesMax = 30_000;

test("three processes carry messages to sockets and to delivered, and drain within their time", async () => {
  await using server = await startServer({ ROLES: "api" });
  await using api = await startRoles(server, "api");
  await using outbox = await startRoles(server, "outbox,backfill");
  await using router = await startRoles(server, "router");
  const scene = await makeScene(server, { conversations: 8, messages: 40 });
  const readers = await openReaders(scene, api.url, () => server.url);
  await startSending(scene, () => [api.url]).done;
  expect(await judgeScene(scene, readers, api.url, { isRetried: false })).toEqual([]);

  await expectDrained(api, outbox, router);
  expect(readers.map(({ closeCodes }) => closeCodes)).toEqual([[restarting], []]);
  for (const one of readers) one.close();
});

test("a drained poller's shards are published by another without waiting for them to run out", async () => {
  await using server = await startServer({ ROLES: "api" });
  const { postgres, config } = server;
  await using drained = await startRoles(server, "outbox");
  await until(
    async () => (await shardsByOwner(postgres)).length === config.KAFKA_PARTITIONS,
    "each shard has an owner",
  );
  const [first] = await shardsByOwner(postgres);
  await using other = await startRoles(server, "outbox");
  await untilWorking(server, [drained.url, other.url], 2);
  const conversationIds = await oneOfEachShard(server);

  await expectDrained(drained);
  const drainedAtMs = performance.now();
  const kept = (await shardsByOwner(postgres)).filter(({ owner }) => owner === first?.owner);
  expect(kept).toEqual([]);
  for (const id of conversationIds) expect((await server.post(id, "after the drain")).status).toBe(202);
  await until(async () => (await postgres.query("select from outbox")).length === 0, "the outbox is empty");
  // A second is what it takes, the rest is for a busy machine. A lease that must run out first takes over three.
  expect(performance.now() - drainedAtMs).toBeLessThan(2_500);
});

test("nothing acknowledged is lost while the processes of every role are drained under load", async () => {
  await using server = await startServer({ ROLES: "api" });
  await using api = await startRoles(server, "api");
  await using outbox = await startRoles(server, "outbox");
  await using router = await startRoles(server, "router");
  await using staying = await startRoles(server, "outbox,router,backfill");
  await untilWorking(server, [api.url, outbox.url, router.url, staying.url], 2);
  const scene = await makeScene(server, { conversations: 200, messages: messagesMax });
  const readers = await openReaders(scene, api.url, () => server.url);
  readers.push(...(await openReaders(scene, server.url)));

  // Clients do not know who goes: they try the one, and then the other.
  const load = startSending(scene, () => [api.url, server.url], 20_000);
  const drains: Promise<void>[] = [];
  for (const [count, process] of [
    [1_000, api],
    [1_500, outbox],
    [2_000, router],
  ] as const) {
    await load.reached(count);
    drains.push(expectDrained(process));
  }
  // A drain looks around for a while before it begins: the load lasts until the last process is gone.
  await Promise.all(drains);
  load.cutShort();
  await load.done;
  // Otherwise nobody was at it when a process went.
  expect(scene.messages.some(({ copies }) => copies.some(({ failure }) => failure !== undefined))).toBe(true);
  expect(await judgeScene(scene, readers, server.url, { isRetried: true })).toEqual([]);
  expect(readers.map(({ closeCodes }) => closeCodes)).toEqual([[restarting], [], [], []]);
  for (const one of readers) one.close();
});

function startRoles(server: TestServer, roles: string): Promise<NodeProcess> {
  return startNode(server.config, {}, ["--roles", roles]);
}

/** A socket with the hot conversation and a few others, and an event stream of the hot one, both from the start. */
function openReaders({ hotId, conversationIds, tokens }: Scene, url: string, resumeAt?: () => string) {
  const token = tokens.get(reader) ?? "";
  const options = { url, token, after: 0, ...(resumeAt && { resumeAt }) };
  const some = [hotId, ...conversationIds.slice(0, 8)];
  return Promise.all([
    openSocketReader({ ...options, name: `socket opened at ${url}`, conversationIds: some }),
    openStreamReader({ ...options, name: `event stream opened at ${url}`, conversationId: hotId }),
  ]);
}

async function expectDrained(...processes: NodeProcess[]): Promise<void> {
  const ends = await Promise.all(processes.map((one) => one.stop()));
  expect(ends.map(({ code }) => code)).toEqual(processes.map(() => 0));
  expect(Math.max(...ends.map(({ durationMs }) => durationMs))).toBeLessThan(drainMsMax);
}

function shardsByOwner(postgres: Postgres): Promise<{ shard: number; owner: string }[]> {
  return postgres.query(
    "select shard, owner from shard_leases where owner is not null and expires_at > clock_timestamp()",
  );
}

async function oneOfEachShard(server: TestServer): Promise<string[]> {
  const ids = new Map<number, string>();
  while (ids.size < server.config.KAFKA_PARTITIONS) {
    const id = await server.makeGroup([]);
    ids.set(shardOf(server.config, id), id);
  }
  return [...ids.values()];
}
