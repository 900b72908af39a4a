// A Redis that goes away, comes back, and comes back empty.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { startBackfill } from "../../src/backfill/backfill.ts";
import { allChannel, publishAnnouncements, publishMessage } from "../../src/deliver/bus.ts";
import { openRecentCache } from "../../src/deliver/recent-cache.ts";
import { openRedis } from "../../src/platform/redis.ts";
import { openWatchdogs } from "../../src/platform/watchdog.ts";
import { openApp, tokenOf } from "../deliver/app.ts";
import { OwnRedis } from "../deliver/own-redis.ts";
import { log, RecordingSink, Stand, shards } from "../deliver/stand.ts";
import { openSocket } from "../support/socket.ts";
import { until } from "../support/until.ts";

let stand: Stand;
beforeAll(async () => {
  stand = await Stand.open();
});
afterAll(() => stand[Symbol.asyncDispose]());

/** A backfill as its worker runs it, on the keys of this database. */
function openBackfill(url: string) {
  const redis = openRedis({ url, prefix: stand.prefix, log });
  const announced: string[] = [];
  const states: string[] = [];
  const recent = openRecentCache(redis);
  const backfill = startBackfill({
    postgres: stand.postgres,
    redis,
    log,
    watchdogs: openWatchdogs(),
    report: (_system, state) => void (states.at(-1) !== state && states.push(state)),
    announce(moved) {
      announced.push(...moved.map(({ conversation_id }) => conversation_id));
      publishAnnouncements(redis, shards, moved);
    },
    askForStates: () => publishMessage(redis, allChannel, { kind: "epoch" }),
    noteRecent: (moved, items) => recent.write(moved.conversation_id, moved.sequence_number, items),
  });
  return {
    redis,
    recent,
    announced,
    states,
    async [Symbol.asyncDispose]() {
      await backfill.stop();
      await redis.close();
    },
  };
}

test("what moved while Redis was away is announced, and noted anew, when it is back", async () => {
  await using server = new OwnRedis();
  await server.start();
  const moved = await stand.makeGroup("ann");
  await using backfill = openBackfill(server.url);
  await until(() => backfill.states.at(-1) === "up", "the backfill sees Redis");
  await until(async () => (await backfill.redis.get("epoch")) !== null, "the epoch is set");

  await server.kill();
  await until(() => backfill.states.at(-1) === "degraded", "the backfill misses Redis");
  await stand.commit(moved, 60);
  await server.start();
  await until(() => backfill.announced.includes(moved), "it is announced");
  await until(
    async () => (await backfill.recent.read(moved, 60).catch(() => null)) !== null,
    "its items are noted",
  );
  const items = (await backfill.recent.read(moved, 60))?.map((item) => JSON.parse(item).sequence_number);
  expect(items).toEqual(Array.from({ length: 50 }, (_, index) => 60 - index));
});

test("an announcement makes an instance fetch what it never heard of", async () => {
  await using server = new OwnRedis();
  await server.start();
  await using instance = await stand.openHub(server.url);
  await using announcer = await stand.openHub(server.url);
  const conversationId = await stand.makeGroup("ann");
  const sink = new RecordingSink();
  await instance.hub.subscribe({ conversationId, userId: "ann", after: undefined, sink });
  await stand.commit(conversationId, 3);
  publishAnnouncements(announcer.redis, shards, [{ conversation_id: conversationId, sequence_number: 3 }]);
  expect(await sink.until(3)).toBeLessThan(500);
});

test("a Redis that comes back empty gets its items and presence back", async () => {
  await using server = new OwnRedis();
  await server.start();
  await using app = await openApp(stand, server.url);
  await using backfill = openBackfill(server.url);
  await until(async () => (await backfill.redis.get("epoch").catch(() => null)) !== null, "the epoch is set");
  const conversationId = await stand.makeGroup("ann");
  await stand.commit(conversationId, 2);
  using ann = openSocket(app.url, tokenOf({ user: "ann" }));
  await ann.next({ type: "hello" });
  await ann.ask({ type: "subscribe", conversation_id: conversationId });

  const presence = () =>
    backfill.redis.evaluate("return redis.call('ZCARD', KEYS[1])", [`presence:${conversationId}`], []);
  await until(async () => (await presence()) === 1, "ann is present");
  // Nobody's connection notices this one.
  await backfill.redis.evaluate("return redis.call('FLUSHALL')", [], []);
  await until(async () => (await presence()) === 1, "ann is present again");
  await until(async () => (await backfill.recent.read(conversationId, 2)) !== null, "its items are noted");
});
