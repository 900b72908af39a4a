// Whether a node works, whether it should get traffic, and how it goes down.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { once } from "node:events";
import net from "node:net";
import { serve } from "../../src/serve.ts";
import { startDocumentedServer } from "../support/documented-server.ts";
import { type FaultProxy, startFaultProxy } from "../support/fault-proxy.ts";
import { expectProblem } from "../support/problems.ts";
import { callsOf, type TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";

let server: TestServer;
let proxy: FaultProxy | undefined;
beforeAll(async () => {
  server = await startDocumentedServer();
});
afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
  await proxy?.stop();
});

type Calls = Pick<TestServer, "call">;
const health = (node: Calls) => node.call("GET", "/healthz", undefined, { as: null });
const readiness = (node: Calls) => node.call("GET", "/readyz", undefined, { as: null });

async function startSibling(changes: Record<string, string>) {
  const { url } = await server.startSibling(changes);
  return callsOf(url, server.config);
}

test("a node is healthy and ready, and says how each dependency is", async () => {
  const healthy = await health(server);
  expect({ status: healthy.status, body: healthy.body }).toEqual({ status: 200, body: { status: "ok" } });
  await until(async () => (await readiness(server)).body.status === "ok", "every dependency is up");
  const { status, body } = await readiness(server);
  expect({ status, body }).toEqual({
    status: 200,
    body: { status: "ok", dependencies: { postgres: "up", redis: "up" } },
  });
});

test("a node is asked for its health with HTTP/1.0 and no Host, as load balancers do", async () => {
  for (const path of ["/healthz", "/readyz"]) {
    const socket = net.connect(Number(new URL(server.url).port), "127.0.0.1");
    socket.write(`GET ${path} HTTP/1.0\r\n\r\n`);
    const [head] = await once(socket, "data");
    socket.destroy();
    expect(String(head)).toStartWith("HTTP/1.1 200 ");
  }
});

test("without Redis a node is degraded and ready, and no call fails", async () => {
  const alone = await startSibling({ REDIS_URL: "redis://127.0.0.1:1" });
  const { status, body } = await readiness(alone);
  expect({ status, body }).toEqual({
    status: 200,
    body: { status: "degraded", dependencies: { postgres: "up", redis: "degraded" } },
  });
  const id = await alone.makeGroup(["bob"]);
  expect((await alone.post(id, "hello")).status).toBe(202);
  expect((await alone.call("GET", `/v1/conversations/${id}/messages`)).body.items).toHaveLength(1);
});

test("without Kafka a node is degraded and ready, and messages are accepted", async () => {
  const alone = await startSibling({ ROLES: "api,outbox", KAFKA_BROKERS: "127.0.0.1:1" });
  await until(
    async () => (await readiness(alone)).body.dependencies.kafka === "degraded",
    "the poller tells that Kafka is away",
  );
  const { status, body } = await readiness(alone);
  expect({ status, body }).toMatchObject({ status: 200, body: { status: "degraded" } });
  expect((await alone.post(await alone.makeGroup(["bob"]), "hello")).status).toBe(202);
});

test("without Postgres a node is healthy but not ready, calls are 503 with Retry-After, and all comes back", async () => {
  const url = new URL(server.config.DATABASE_URL);
  proxy = await startFaultProxy({ target: Number(url.port) });
  url.port = String(proxy.port);
  const cut = await startSibling({ DATABASE_URL: url.href });
  const id = await cut.makeGroup([]);
  expect((await readiness(cut)).status).toBe(200);

  proxy.isRefusing = true;
  proxy.endConnections("reset");
  await until(async () => (await readiness(cut)).status === 503, "it is noticed");
  const unready = await readiness(cut);
  expect(unready).toMatchObject({
    status: 503,
    body: { status: "unavailable", dependencies: { postgres: "down" } },
  });
  expect(unready.headers.get("retry-after")).toBe("1");
  expect((await health(cut)).status).toBe(200);
  const messageId = crypto.randomUUID();
  expectProblem(await cut.post(id, "hello", { messageId }), 503, "database_unavailable");
  expectProblem(await cut.call("GET", "/v1/conversations"), 503, "database_unavailable");

  proxy.isRefusing = false;
  await until(async () => (await readiness(cut)).status === 200, "the node is ready again");
  expect((await cut.post(id, "hello", { messageId })).body).toMatchObject({ sequence_number: 1 });
});

test("a node that drains is not ready, and answers what is in flight before it is gone", async () => {
  const node = await serve(server.config);
  const leaving = callsOf(node.url, server.config);
  const id = await leaving.makeGroup([]);
  const lock = await holdLock(id);
  const inFlight = leaving.post(id, "in flight");
  await until(() => lock.isWaitedFor(), "the message waits for the lock");

  const gone = node.drain();
  const draining = await readiness(leaving);
  expect(draining).toMatchObject({ status: 503, body: { status: "draining" } });
  expect(draining.headers.get("retry-after")).toBe("1");
  const isListening = () =>
    health(leaving).then(
      () => true,
      () => false,
    );
  await until(async () => !(await isListening()), "nobody listens any more");
  await lock.release();
  expect((await inFlight).status).toBe(202);
  await gone;
  const kept = await server.call("GET", `/v1/conversations/${id}/messages`);
  expect(kept.body.items).toMatchObject([{ payload: { text: "in flight" } }]);
});

/** Holds a conversation's row, so that a message to it waits in the database. */
async function holdLock(id: string) {
  const released = Promise.withResolvers<void>();
  const held = Promise.withResolvers<void>();
  const sql = new Bun.SQL(server.config.DATABASE_URL, { max: 1 });
  const transaction = sql.begin(async (own) => {
    await own`select from conversations where id = ${id} for update`;
    held.resolve();
    await released.promise;
  });
  await held.promise;
  return {
    async isWaitedFor() {
      const waiting = await server.postgres.query("select from pg_locks where not granted");
      return waiting.length > 0;
    },
    async release() {
      released.resolve();
      await transaction;
      await sql.end();
    },
  };
}
