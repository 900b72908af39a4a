// The edge of a real node: a body that does not arrive, bodies that would take too much memory, and a queue that is full.
import { afterAll, beforeAll, expect, test } from "bun:test";
import net from "node:net";
import { Elysia } from "elysia";
import { openEdge } from "../../src/edge/edge.ts";
import { openLog } from "../../src/platform/log.ts";
import { boundQueries } from "../../src/platform/postgres-bound.ts";
import { connect } from "../support/database.ts";
import { startServer, type TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";

let server: TestServer;
let token: string;
let conversation: string;
beforeAll(async () => {
  server = await startServer({ ROLES: "api" });
  token = await server.token("alice");
  conversation = await server.makeGroup(["bob"]);
});
afterAll(async () => await server?.[Symbol.asyncDispose]());

/** A request that begins; what comes back, and whether the connection has ended. */
function begin(path: string, framing: string) {
  const socket = net.connect(Number(new URL(server.url).port), "127.0.0.1");
  const { promise: ended, resolve } = Promise.withResolvers<void>();
  let text = "";
  socket.on("data", (chunk) => (text += chunk));
  socket.on("error", () => undefined);
  socket.on("close", () => resolve());
  const head = `host: x\r\nauthorization: Bearer ${token}\r\ncontent-type: application/json\r\n${framing}`;
  socket.write(`POST ${path} HTTP/1.1\r\n${head}\r\n\r\n`);
  return { socket, ended, text: () => text };
}

test("a body that comes a byte at a time is answered with 408 after ten seconds, and its connection ends", async () => {
  const slow = [
    { request: begin("/v1/messages", "content-length: 1000"), piece: "x" },
    { request: begin("/v1/messages/batch", "transfer-encoding: chunked"), piece: "1\r\nx\r\n" },
  ];
  const dribble = setInterval(() => slow.forEach(({ request, piece }) => request.socket.write(piece)), 200);
  await Promise.all(slow.map(({ request }) => request.ended)).finally(() => clearInterval(dribble));
  for (const { request } of slow) {
    expect(request.text()).toStartWith("HTTP/1.1 408 ");
    expect(request.text()).toContain('"code":"body_too_slow"');
  }
}, 25_000);

test("bodies under way have a bound together: 503 beyond it, and room again once they are gone", async () => {
  const mebibyte = 1024 * 1024;
  const held = Array.from({ length: 64 }, () =>
    begin("/v1/messages/batch", `content-length: ${2 * mebibyte}`),
  );
  const beyond = () => server.post(conversation, "beyond");
  await until(async () => (await beyond()).status === 503, "there is no room");
  const refused = await beyond();
  expect(refused.body.code).toBe("overloaded");
  expect(refused.headers.get("retry-after")).toBe("1");
  for (const { socket } of held) socket.destroy();
  await until(async () => (await beyond()).status === 202, "there is room again");
});

test("while the queue is full, messages are refused before token and body are looked at; all else is served", async () => {
  const isQueueFull = () => true;
  const edge = openEdge(
    null as never,
    null as never,
    { isQueueFull, eventStreams: () => 0 },
    openLog("test", "silent"),
  );
  const app = new Elysia().use(edge.plugin).get("/healthz", "ok").listen({ port: 0, hostname: "127.0.0.1" });
  const url = `http://127.0.0.1:${app.server?.port}`;
  for (const path of ["/v1/messages", "/v1/messages/batch"]) {
    const refused = await fetch(url + path, { method: "POST", body: "{" });
    expect(refused.status).toBe(503);
    expect(refused.headers.get("retry-after")).toBe("1");
    expect(refused.headers.get("content-type")).toBe("application/problem+json");
    expect(await refused.json()).toMatchObject({
      code: "overloaded",
      request_id: refused.headers.get("x-request-id"),
    });
  }
  expect((await fetch(`${url}/healthz`)).status).toBe(200);
  await app.stop(true);
});

test("beyond its bound a pool refuses queries with 503, and serves those that wait", async () => {
  await using pool = connect(server.config.DATABASE_URL);
  const bounded = boundQueries(pool, 5);
  const asked = Array.from({ length: 5 }, () => bounded.query("select pg_sleep(0.05)"));
  expect(bounded.query("select 1")).rejects.toMatchObject({
    status: 503,
    code: "database_busy",
    retryAfterSeconds: 1,
  });
  await Promise.all(asked);
  expect(await bounded.query("select 1 as one")).toEqual([{ one: 1 }]);
});
