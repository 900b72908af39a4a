// Postgres away, in each of the ways in which it can be: nobody waits for it, nobody loses a socket, and all goes on
// by itself when it is back.
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import type { Config } from "../../src/config.ts";
import { type Server, serve } from "../../src/serve.ts";
import { dropAll, dropAnswers, type FaultProxy, passAll, startFaultProxy } from "../support/fault-proxy.ts";
import { type Answer, callsOf } from "../support/server.ts";
import { openSocket } from "../support/socket.ts";
import { until } from "../support/until.ts";
import { OwnPostgres, prepareNode } from "./own-node.ts";

setDefaultTimeout(60_000);

const own = new OwnPostgres();
let proxy: FaultProxy;
let config: Config;
let server: Server;
let calls: ReturnType<typeof callsOf>;

beforeAll(async () => {
  await own.start();
  proxy = await startFaultProxy({ target: Number(new URL(own.url).port) });
  const url = new URL(own.url);
  url.port = String(proxy.port);
  config = { ...(await prepareNode(own.url)), DATABASE_URL: url.href };
  server = await serve(config);
  calls = callsOf(server.url, config);
});

afterAll(async () => {
  await server?.drain();
  await proxy?.stop();
  await own[Symbol.asyncDispose]();
});

/** Under way when it goes: by then it must have ended. At once, 400 ms to 1.6 s, and a busy machine. */
const underWayMsMax = 4_000;
/** Refused without asking. */
const refusedMsMax = 300;
/** Three seconds, and a busy machine. */
const resumedMsMax = 6_000;

const waysToGo = {
  "killed, with all its processes": { go: () => own.kill(), comeBack: () => own.start() },
  "paused, with all its processes": { go: () => own.pause(), comeBack: () => own.resume() },
  "behind a network that swallows everything": {
    go: () => void (proxy.fault = dropAll),
    comeBack: () => void (proxy.fault = passAll),
  },
};

for (const [how, { go, comeBack }] of Object.entries(waysToGo)) {
  test(`calls are 503 at once, sockets stay, and all goes on, when Postgres is ${how}`, async () => {
    const id = await calls.makeGroup(["bob"]);
    using socket = openSocket(server.url, await calls.token("bob"));
    await socket.next({ type: "hello" });
    await socket.ask({ type: "subscribe", conversation_id: id });
    await calls.post(id, "before");
    await socket.next({ type: "message", sequence_number: 1 });
    await until(async () => (await stateOf(id, 1)) === "delivered", "the router works");

    await go();
    const messageId = crypto.randomUUID();
    const underWay = await timed(() => calls.post(id, "under way", { messageId }));
    expectUnavailable(underWay.answer);
    expect(underWay.tookMs).toBeLessThan(underWayMsMax);
    await until(async () => (await readiness()) === 503, "it is not ready");
    const refused = await Promise.all([
      timed(() => calls.post(id, "refused")),
      timed(() => calls.call("GET", `/v1/conversations/${id}/messages`)),
      timed(() => calls.call("PATCH", `/v1/conversations/${id}/messages/1`, { payload: text("edited") })),
    ]);
    for (const { answer, tookMs } of refused) {
      expectUnavailable(answer);
      expect(tookMs).toBeLessThan(refusedMsMax);
    }
    expect(
      await socket.ask({ type: "send", message_id: crypto.randomUUID(), ...messageTo(id) }),
    ).toMatchObject({
      type: "error",
      status: 503,
    });

    await comeBack();
    const { answer, tookMs } = await timed(() => untilAccepted(id, messageId));
    expect(tookMs).toBeLessThan(resumedMsMax);
    const { sequence_number } = answer.body;
    expect(await socket.next({ type: "message", sequence_number })).toMatchObject({ message_id: messageId });
    expect(await readiness()).toBe(200);
    const routed = await timed(() =>
      until(async () => (await stateOf(id, sequence_number)) === "delivered", "the workers work"),
    );
    expect(tookMs + routed.tookMs).toBeLessThan(resumedMsMax);
    socket.send({ type: "ping" });
    await socket.next({ type: "pong" });
  });
}

test("a commit whose answer is lost is answered by the retry as it was stored", async () => {
  const id = await calls.makeGroup([]);
  const messageId = crypto.randomUUID();
  // So that each connection has prepared the statement, and sends it in one go.
  for (let number = 1; number <= 6; number += 1) await calls.post(id, "before");
  proxy.fault = dropAnswers;
  expectUnavailable(await calls.post(id, "hello", { messageId }));
  proxy.fault = passAll;
  const { body, headers } = await untilAccepted(id, messageId, "hello");
  expect(body).toMatchObject({ sequence_number: 7, replay: true });
  expect(headers.get("idempotent-replay")).toBe("true");
  expect((await calls.post(id, "next")).body).toMatchObject({ sequence_number: 8 });
});

test("nothing is refused when only connections are cut", async () => {
  const id = await calls.makeGroup([]);
  for (let round = 1; round <= 5; round += 1) {
    proxy.endConnections("reset");
    expect((await calls.post(id, "hello")).body).toMatchObject({ sequence_number: round });
    await until(async () => (await stateOf(id, round)) === "delivered", "the workers work");
  }
});

function text(words: string) {
  return { type: "text", text: words };
}

function messageTo(conversation_id: string) {
  return { conversation_id, payload: text("by socket") };
}

function expectUnavailable({ status, body, headers }: Answer) {
  expect(body).toMatchObject({ status: 503, code: "database_unavailable" });
  expect({ status, retryAfter: headers.get("retry-after") }).toEqual({ status: 503, retryAfter: "1" });
}

async function untilAccepted(id: string, messageId: string, words = "under way"): Promise<Answer> {
  let answer: Answer | undefined;
  await until(async () => {
    answer = await calls.post(id, words, { messageId });
    return answer.status === 202;
  }, "messages are accepted");
  return answer as Answer;
}

async function readiness(): Promise<number> {
  return (await fetch(`${server.url}/readyz`)).status;
}

async function stateOf(id: string, number: number): Promise<string> {
  return (await calls.call("GET", `/v1/conversations/${id}/messages/${number}`)).body.state;
}

async function timed<T>(work: () => Promise<T>): Promise<{ answer: T; tookMs: number }> {
  const startedAtMs = performance.now();
  const answer = await work();
  return { answer, tookMs: performance.now() - startedAtMs };
}
