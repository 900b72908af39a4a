// Redis away, in each of the ways in which it can be: no call waits for it or fails, what happens on one node still
// reaches the other soon, and what it lost is put right when it is back.
import { afterAll, afterEach, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { openRedis } from "../../src/platform/redis.ts";
import { OwnRedis } from "../deliver/own-redis.ts";
import { log } from "../deliver/stand.ts";
import { linesOf } from "../support/cli.ts";
import { dropAll, dropAnswers, type FaultProxy, passAll, startFaultProxy } from "../support/fault-proxy.ts";
import { startServer, type TestServer } from "../support/server.ts";
import { openSocket, type TestSocket } from "../support/socket.ts";
import { until } from "../support/until.ts";
import { startNode } from "../walk/node-process.ts";

setDefaultTimeout(60_000);

const own = new OwnRedis();
let proxy: FaultProxy;
let server: TestServer;
let otherUrl: string;

beforeAll(async () => {
  await own.start();
  proxy = await startFaultProxy({ target: Number(new URL(own.url).port) });
  server = await startServer({ REDIS_URL: `redis://127.0.0.1:${proxy.port}`, ROLES: "api,backfill" });
  otherUrl = (await server.startSibling({ ROLES: "api" })).url;
});

afterEach(async () => {
  proxy.fault = passAll;
  await until(async () => (await redisStates()).every((state) => state === "up"), "Redis is back");
});

afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
  await proxy?.stop();
  await own[Symbol.asyncDispose]();
});

/** 1.5 s, and a busy machine. */
const deliveredMsMax = 2_000;
/** 100 ms of waiting for Redis, and what the call itself takes. */
const callMsMax = 300;
const milliseconds = 250;

const waysToGo = {
  killed: { go: () => own.kill(), comeBack: () => own.start(), isEmpty: true },
  "hanging without closing": { go: () => own.pause(), comeBack: () => own.resume(), isEmpty: false },
  "behind a network that swallows everything": {
    go: () => void (proxy.fault = dropAll),
    comeBack: () => void (proxy.fault = passAll),
    isEmpty: false,
  },
  "behind a network that swallows its answers": {
    go: () => void (proxy.fault = dropAnswers),
    comeBack: () => void (proxy.fault = passAll),
    isEmpty: false,
  },
};

for (const [how, { go, comeBack, isEmpty }] of Object.entries(waysToGo)) {
  test(`no call waits or fails, and messages cross in time, when Redis is ${how}`, async () => {
    const id = await server.makeGroup(["bob"]);
    using socket = await subscribed(id);
    await untilQuick(id, socket);

    await go();
    const tookMs: number[] = [];
    const waits: number[] = [];
    for (let count = 0; count < 8; count += 1) {
      tookMs.push(await crossing(id, socket));
      const startedAtMs = performance.now();
      expect((await server.call("GET", `/v1/conversations/${id}/messages`)).status).toBe(200);
      waits.push(performance.now() - startedAtMs);
    }
    expect(Math.max(...tookMs)).toBeLessThan(deliveredMsMax);
    expect(Math.max(...waits)).toBeLessThan(callMsMax);
    expect(await redisStates()).toEqual(["degraded", "degraded"]);

    await comeBack();
    await until(async () => (await redisStates()).every((state) => state === "up"), "Redis is back");
    await untilQuick(id, socket);
    await using redis = openRedis({ url: own.url, prefix: server.config.REDIS_PREFIX, log });
    if (isEmpty) {
      await until(
        async () =>
          (await redis
            .evaluate("return redis.call('ZCARD', KEYS[1])", [`presence:${id}`], [])
            .catch(() => 0)) === 1,
        "bob is present again",
      );
    }
    await until(
      async () => (await redis.get(`recent:${id}`).catch(() => null)) !== null,
      "its newest items are noted",
    );
  });
}

test("messages of a node that is cut off from Redis reach those that are not in time", async () => {
  const { url } = await server.startSibling({ ROLES: "api", REDIS_URL: own.url });
  const id = await server.makeGroup(["bob"]);
  using socket = await subscribed(id, url);
  await untilQuick(id, socket);
  proxy.fault = dropAll;
  await until(async () => (await statesOf(server.url))["redis"] === "degraded", "the one is cut off");
  const tookMs: number[] = [];
  for (let count = 0; count < 4; count += 1) tookMs.push(await crossing(id, socket));
  expect((await statesOf(url))["redis"]).toBe("up");
  expect(Math.max(...tookMs)).toBeLessThan(deliveredMsMax);
});

test("the circuit opens within a second, and then nobody waits at all", async () => {
  await using redis = openRedis({ url: server.config.REDIS_URL, prefix: "test:", log });
  await until(() => redis.state() === "up", "Redis is up");
  own.pause();
  const pausedAtMs = performance.now();
  await until(() => redis.circuitState() === "open", "the circuit opens");
  expect(performance.now() - pausedAtMs).toBeLessThan(1_300);
  const waits: number[] = [];
  for (let count = 0; count < 20; count += 1) {
    const askedAtMs = performance.now();
    await redis.get("key").catch(() => null);
    waits.push(performance.now() - askedAtMs);
  }
  expect(waits.toSorted((one, next) => one - next)[15]).toBeLessThan(10);
  own.resume();
});

test("the backfill says what it put right", async () => {
  await using node = await startNode(server.config, { ROLES: "backfill", LOG_LEVEL: "info" });
  await until(() => node.logged().includes('"state":"up","msg":"redis"'), "it sees Redis");
  await own.kill();
  const id = await server.makeGroup(["bob"]);
  await server.post(id, "while Redis was away");
  await own.start();
  const said = () => linesOf(node.logged()).find((line) => /"announced":[1-9]/.test(line));
  await until(() => said() !== undefined, "it says so");
  expect(JSON.parse(said() ?? "{}")).toMatchObject({
    msg: "put right what Redis lost",
    away_ms: expect.any(Number),
    rebuilt: expect.any(Number),
  });
});

/** Bob's socket at another node. */
async function subscribed(id: string, url = otherUrl): Promise<TestSocket> {
  const socket = openSocket(url, await server.token("bob"));
  await socket.next({ type: "hello" });
  await socket.ask({ type: "subscribe", conversation_id: id });
  return socket;
}

/** Posts at one node; how long after its answer bob has it at the other, in milliseconds. */
async function crossing(id: string, socket: TestSocket): Promise<number> {
  const { body } = await server.post(id, "hello");
  const answeredAtMs = performance.now();
  await socket.next({ type: "message", sequence_number: body.sequence_number });
  return performance.now() - answeredAtMs;
}

async function untilQuick(id: string, socket: TestSocket): Promise<void> {
  await until(async () => (await crossing(id, socket)) < milliseconds, "messages cross in milliseconds");
}

async function redisStates(): Promise<unknown[]> {
  const states = await Promise.all([statesOf(server.url), statesOf(otherUrl)]);
  return states.map(({ redis }) => redis);
}

async function statesOf(url: string): Promise<Record<string, unknown>> {
  const answer = await fetch(`${url}/readyz`);
  return ((await answer.json()) as { dependencies: Record<string, unknown> }).dependencies;
}
