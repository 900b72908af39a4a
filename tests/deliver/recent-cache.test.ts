import { expect, test } from "bun:test";
import { openRecentCache } from "../../src/deliver/recent-cache.ts";
import { openRedis } from "../../src/platform/redis.ts";
import { until } from "../support/until.ts";
import { OwnRedis } from "./own-redis.ts";
import { log } from "./stand.ts";

test("noted items are given for the number they were noted for, and for no other", async () => {
  await using server = new OwnRedis();
  await server.start();
  await using redis = openRedis({ url: server.url, prefix: "test:", log });
  await until(() => redis.state() === "up", "Redis is up");
  const cache = openRecentCache(redis);
  const conversationId = crypto.randomUUID();
  const items = ['{"text":"a,b\\n"}', '{"text":"[\\u001e]"}'];

  expect(await cache.read(conversationId, 2)).toBeNull();
  await cache.write(conversationId, 2, items);
  expect(await cache.read(conversationId, 2)).toEqual(items);
  for (const other of [1, 3, 20]) expect(await cache.read(conversationId, other)).toBeNull();
  await cache.write(conversationId, 3, Array<string>(60).fill("{}"));
  expect(await cache.read(conversationId, 3)).toHaveLength(50);
});

test("without Redis there are no items, and nobody waits or fails", async () => {
  await using server = new OwnRedis();
  await server.start();
  await using redis = openRedis({ url: server.url, prefix: "test:", log });
  await until(() => redis.state() === "up", "Redis is up");
  const cache = openRecentCache(redis);
  const slowest = async () => {
    const startedAt = performance.now();
    expect(await cache.read("a", 1)).toBeNull();
    await cache.write("a", 1, ["{}"]);
    return performance.now() - startedAt;
  };
  server.pause();
  // Each of the two waits a tenth of a second at most, until the circuit opens within a second.
  expect(await slowest()).toBeLessThan(300);
  await until(() => redis.circuitState() === "open", "the circuit is open", 1000);
  expect(await slowest()).toBeLessThan(50);
  server.resume();
  await until(() => redis.circuitState() === "closed", "the circuit is closed again");
  await cache.write("a", 1, ["{}"]);
  expect(await cache.read("a", 1)).toEqual(["{}"]);
});
