// How Redis is reached, and what publishing to it may cost.
import { expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openRedis } from "../../src/platform/redis.ts";
import { until } from "../support/until.ts";
import { OwnRedis } from "./own-redis.ts";
import { log } from "./stand.ts";

test("a URL with sentinels leads to the primary that they name", async () => {
  await using primary = new OwnRedis();
  await primary.start();
  const directory = await mkdtemp(join(tmpdir(), "sentinel-"));
  const probe = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data: () => undefined } });
  const sentinelPort = probe.port;
  probe.stop(true);
  const configuration = join(directory, "sentinel.conf");
  await Bun.write(
    configuration,
    `port ${sentinelPort}\nbind 127.0.0.1\ndir ${directory}\nsentinel monitor main 127.0.0.1 ${new URL(primary.url).port} 1\n`,
  );
  await using sentinel = Bun.spawn(["redis-server", configuration, "--sentinel"], {
    stdout: "ignore",
    stderr: "ignore",
  });

  const url = `redis+sentinel://127.0.0.1:1,127.0.0.1:${sentinelPort}/main/2`;
  await using redis = openRedis({ url, prefix: "test:", log });
  await until(() => redis.state() === "up", "Redis is up");
  await redis.set("key", "value", 10_000);
  await using direct = openRedis({ url: `${primary.url}/2`, prefix: "test:", log });
  await until(() => direct.state() === "up", "Redis is up");
  expect(await direct.get("key")).toBe("value");
  sentinel.kill();
  await sentinel.exited;
  await rm(directory, { recursive: true });
});

test("a Redis that hangs costs a publisher neither time nor memory without bound", async () => {
  await using server = new OwnRedis();
  await server.start();
  await using redis = openRedis({ url: server.url, prefix: "test:", log });
  await until(() => redis.state() === "up", "Redis is up");
  server.pause();
  const message = { channel: "live:1", text: "x".repeat(1024 * 1024) };
  let taken = 0;
  for (let count = 0; count < 100; count += 1) taken += Number(redis.publish([message]));
  expect(taken).toBeLessThan(20);
  await until(() => redis.state() === "degraded", "it is taken for away", 2000);
  expect(redis.publish([message])).toBe(false);
  server.resume();
  await until(() => redis.state() === "up" && redis.publish([message]), "it publishes again");
});
