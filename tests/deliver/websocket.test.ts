// The frames of /v1/stream, each as it should be and as it should not.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import net from "node:net";
import { Problem } from "../../src/model/errors.ts";
import { openSocket, type TestSocket } from "../support/socket.ts";
import { until } from "../support/until.ts";
import { openApp, type TestApp, tokenOf } from "./app.ts";
import { OwnRedis } from "./own-redis.ts";
import { Stand } from "./stand.ts";

let stand: Stand;
let app: TestApp;
const redis = new OwnRedis();
beforeAll(async () => {
  stand = await Stand.open();
  await redis.start();
  app = await openApp(stand, redis.url);
});
afterAll(async () => {
  await app[Symbol.asyncDispose]();
  await redis[Symbol.asyncDispose]();
  await stand[Symbol.asyncDispose]();
});

type Claims = { scopes?: string[]; life?: number; id?: string };

/** A socket that was greeted. */
async function connect(user: string, claims: Claims = {}, at = app): Promise<TestSocket> {
  const socket = openSocket(at.url, tokenOf({ user, ...claims }));
  await socket.next({ type: "hello" });
  return socket;
}

const error = (status: number, code: string) => ({ type: "error", status, code });

describe("a socket", () => {
  test("is greeted, and every answer carries the ref of its frame", async () => {
    const conversation_id = await stand.makeGroup("ann");
    using ann = await connect("ann");
    expect(ann.frames).toEqual([{ type: "hello", user_id: "ann" }]);
    expect(await ann.ask({ type: "ping" })).toMatchObject({ type: "pong" });
    expect(await ann.ask({ type: "ping", ref: 7 })).toEqual({ type: "pong", ref: 7 });
    expect(await ann.ask({ type: "subscribe", conversation_id })).toMatchObject({
      type: "subscribed",
      conversation_id,
      last_sequence_number: 0,
    });
    const message_id = crypto.randomUUID();
    expect(await ann.ask({ type: "send", message_id, conversation_id, payload: {} })).toMatchObject({
      type: "ack",
      sequence_number: 1,
      replay: false,
    });
    expect(await ann.ask({ type: "receipt", conversation_id, read: 1 })).toMatchObject({
      type: "receipt",
      conversation_id,
      user_id: "ann",
      delivered: 1,
      read: 1,
    });
    expect(await ann.ask({ type: "unsubscribe", conversation_id })).toMatchObject({
      type: "unsubscribed",
      conversation_id,
      code: "requested",
    });
    expect(await ann.ask({ type: "typing", conversation_id })).toMatchObject({
      ...error(403, "not_subscribed"),
      conversation_id,
    });
  });

  test("gets what follows `after`, first subscribed, then history, then live", async () => {
    const conversation_id = await stand.makeGroup("ann", "bob");
    await stand.commit(conversation_id, 3);
    using bob = await connect("bob");
    await bob.ask({ type: "subscribe", conversation_id: conversation_id.toUpperCase(), after: 1 });
    app.hub.publish(await stand.commit(conversation_id, 2));
    await bob.next({ type: "message", sequence_number: 5 });
    const frames = bob.frames.filter(({ type }) => type === "message" || type === "subscribed");
    expect(frames.map((frame) => frame.sequence_number ?? frame.last_sequence_number)).toEqual([
      3, 2, 3, 4, 5,
    ]);
    expect(frames[1]).toMatchObject({
      type: "message",
      event: "message.created",
      conversation_id,
      sender_id: "ann",
      payload: { type: "text" },
    });
  });

  test("sends of one conversation keep their order without waiting for acks", async () => {
    const conversation_id = await stand.makeGroup("ann");
    using ann = await connect("ann");
    for (let ref = 1; ref <= 50; ref += 1) {
      ann.send({ type: "send", ref, message_id: crypto.randomUUID(), conversation_id, payload: {} });
    }
    await ann.next({ type: "ack", ref: 50 });
    const acks = ann.frames.filter(({ type }) => type === "ack");
    expect(acks.every((ack) => ack.ref === ack.sequence_number)).toBe(true);
  });

  test("that sends more than it waits for answers is told so, frame by frame", async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    await using stalled = await openApp(stand, redis.url, {
      send: async () => {
        await promise;
        return { sequence_number: 1, replay: false };
      },
    });
    using ann = await connect("ann", {}, stalled);
    const conversation_id = crypto.randomUUID();
    for (let ref = 1; ref <= 300; ref += 1) {
      ann.send({ type: "send", ref, message_id: crypto.randomUUID(), conversation_id, payload: {} });
    }
    expect(await ann.next({ ref: 300 })).toMatchObject({ ...error(429, "too_many_frames"), conversation_id });
    resolve();
    await ann.next({ type: "ack", ref: 256 });
    expect(ann.frames.filter(({ type }) => type === "error")).toHaveLength(44);
  });

  test("an upgrade without a token is refused, and a request without an upgrade", async () => {
    expect((await fetch(`${app.url}/v1/stream`)).status).toBe(401);
    expect(
      (await fetch(`${app.url}/v1/stream?access_token=${encodeURIComponent(tokenOf({ user: "ann" }))}`))
        .status,
    ).toBe(400);
  });
});

describe("a bad frame", () => {
  const conversation_id = crypto.randomUUID();
  const bad: Record<string, unknown> = {
    "no JSON": "{",
    "no object": "[]",
    null: "null",
    "a string": '"hello"',
    "no type": {},
    "an unknown type": { type: "shout" },
    "a type of the prototype": { type: "constructor" },
    "an unknown field": { type: "ping", extra: 1 },
    "a bad UUID": { type: "subscribe", conversation_id: "1" },
    "a missing conversation": { type: "subscribe" },
    "a negative number": { type: "subscribe", conversation_id, after: -1 },
    "a fraction": { type: "subscribe", conversation_id, after: 1.5 },
    "a number beyond 2^53": `{"type":"subscribe","conversation_id":"${conversation_id}","after":9007199254740993}`,
    "a number as text": { type: "subscribe", conversation_id, after: "1" },
    "U+0000": {
      type: "send",
      ref: 1,
      message_id: conversation_id,
      conversation_id,
      payload: { type: "text", text: "a\0b" },
    },
    "a lone surrogate": '{"type":"send","ref":1,"payload":"\\ud800"}',
    "too deep": `{"type":"send","ref":1,"payload":${"[".repeat(40)}${"]".repeat(40)}}`,
    "much too deep": `{"type":"send","payload":${"[".repeat(30_000)}${"]".repeat(30_000)}}`,
    "a send without ref": { type: "send", message_id: conversation_id, conversation_id, payload: {} },
    "a ref that is neither text nor integer": { type: "ping", ref: {} },
  };
  for (const [name, frame] of Object.entries(bad)) {
    test(`${name} is answered with an error 400`, async () => {
      using ann = await connect("ann");
      ann.send(frame);
      expect(await ann.next({ type: "error" })).toMatchObject({ status: 400, detail: expect.any(String) });
      expect(await ann.ask({ type: "ping" })).toMatchObject({ type: "pong" });
    });
  }

  test("a binary one is answered with an error 400", async () => {
    const raw = new WebSocket(
      `${app.url.replace("http", "ws")}/v1/stream?access_token=${encodeURIComponent(tokenOf({ user: "ann" }))}`,
    );
    const { promise, resolve } = Promise.withResolvers<string>();
    raw.addEventListener("message", ({ data }) => {
      if (String(data).includes("hello")) raw.send(new Uint8Array([123, 125]));
      else resolve(String(data));
    });
    expect(JSON.parse(await promise)).toMatchObject(error(400, "bad_frame"));
    raw.close();
  });

  test("one with more bytes than a request may have is answered with 413, and stores nothing", async () => {
    const conversation = await stand.makeGroup("ann");
    using ann = await connect("ann");
    const frame = (data: string) => ({
      type: "send",
      ref: "r",
      message_id: crypto.randomUUID(),
      conversation_id: conversation,
      payload: { type: "custom", data },
    });
    const room = 64 * 1024 - JSON.stringify(frame("")).length;
    // Bytes count, not characters.
    ann.send(JSON.stringify(frame(`${"x".repeat(room - 1)}é`)));
    expect(await ann.next({ type: "error" })).toMatchObject({ ...error(413, "body_too_large"), ref: "r" });
    ann.send(JSON.stringify(frame("x".repeat(room))));
    expect(await ann.next({ type: "ack" })).toMatchObject({ ref: "r", sequence_number: 1 });
  });

  test("one that is too large closes the socket", async () => {
    using ann = await connect("ann");
    ann.send(JSON.stringify({ type: "send", payload: "x".repeat(200_000) }));
    expect([1006, 1009]).toContain(await ann.closed());
  });

  test("too many of them close the socket with 1008", async () => {
    using ann = await connect("ann");
    for (let count = 0; count < 30; count += 1) ann.send("{");
    expect(await ann.closed()).toBe(1008);
    expect(ann.frames.filter(({ type }) => type === "error").length).toBeLessThan(25);
  });

  test("an error of a send carries its ref and conversation, and nothing of the inside", async () => {
    await using failing = await openApp(stand, redis.url, {
      send: async () => {
        throw new Error("secret");
      },
      moveCursors: async () => {
        throw new Problem(400, "invalid_request", "beyond", {
          errors: [{ path: "/read", message: "is beyond" }],
        });
      },
    });
    using ann = await connect("ann", {}, failing);
    const frame = { type: "send", ref: "r", message_id: conversation_id, conversation_id, payload: {} };
    const answer = await ann.ask(frame);
    expect(answer).toMatchObject({ ...error(500, "internal_error"), ref: "r", conversation_id });
    expect(JSON.stringify(answer)).not.toContain("secret");
    expect(await ann.ask({ type: "receipt", conversation_id, read: 9 })).toMatchObject({
      ...error(400, "invalid_request"),
      detail: expect.stringContaining("/read: is beyond"),
    });
  });
});

describe("a subscription is refused", () => {
  test("to a stranger, of no conversation, beyond the last number, and a second time", async () => {
    const conversation_id = await stand.makeGroup("ann");
    using ann = await connect("ann");
    using eve = await connect("eve");
    expect(await eve.ask({ type: "subscribe", conversation_id })).toMatchObject({
      type: "error",
      status: 403,
      conversation_id,
    });
    const missing = crypto.randomUUID();
    expect(await ann.ask({ type: "subscribe", conversation_id: missing })).toMatchObject({
      type: "error",
      status: 404,
      conversation_id: missing,
    });
    expect(await ann.ask({ type: "subscribe", conversation_id, after: 1 })).toMatchObject({
      type: "error",
      status: 400,
      conversation_id,
    });
    expect(await ann.ask({ type: "subscribe", conversation_id, after: 0 })).toMatchObject({
      type: "subscribed",
    });
    expect(await ann.ask({ type: "subscribe", conversation_id })).toMatchObject(
      error(409, "already_subscribed"),
    );
  });

  test("beyond a thousand of them, and possible again after one ended", async () => {
    const ids = await Promise.all(Array.from({ length: 1001 }, () => stand.makeGroup("ann")));
    using ann = await connect("ann");
    for (const conversation_id of ids.slice(0, 1000)) {
      ann.send({ type: "subscribe", conversation_id });
      if (ann.frames.length % 200 === 0) await ann.ask({ type: "ping" });
      await until(
        () =>
          ann.frames.filter(({ type }) => type === "subscribed").length > ids.indexOf(conversation_id) - 100,
        "it keeps up",
      );
    }
    await until(
      () => ann.frames.filter(({ type }) => type === "subscribed").length === 1000,
      "all are there",
    );
    expect(await ann.ask({ type: "subscribe", conversation_id: ids[1000] })).toMatchObject(
      error(429, "too_many_subscriptions"),
    );
    await ann.ask({ type: "unsubscribe", conversation_id: ids[0] });
    expect(await ann.ask({ type: "subscribe", conversation_id: ids[1000] })).toMatchObject({
      type: "subscribed",
    });
  });
});

describe("a scope that is missing", () => {
  const ids = { conversation_id: crypto.randomUUID(), message_id: crypto.randomUUID() };
  const frames: [string[], { type: string } & Record<string, unknown>][] = [
    [["messages:write"], { type: "subscribe", conversation_id: ids.conversation_id }],
    [["messages:write"], { type: "receipt", conversation_id: ids.conversation_id, read: 1 }],
    [["messages:read"], { type: "send", ...ids, payload: {} }],
    [["messages:read"], { type: "typing", conversation_id: ids.conversation_id }],
  ];
  for (const [scopes, frame] of frames) {
    test(`is told to a ${frame.type} with ${scopes.join()}`, async () => {
      using ann = await connect("ann", { scopes });
      expect(await ann.ask(frame)).toMatchObject(error(403, "insufficient_scope"));
    });
  }
});

describe("a removed member's socket", () => {
  test("gets the removal, then unsubscribed, and nothing after; a new subscription is refused", async () => {
    const conversation_id = await stand.makeGroup("ann", "bob");
    using ann = await connect("ann");
    using bob = await connect("bob");
    for (const socket of [ann, bob]) await socket.ask({ type: "subscribe", conversation_id });
    const removal = await stand.remove(conversation_id, "ann", "bob");
    app.hub.publish([removal, ...(await stand.commit(conversation_id))]);
    await ann.next({ type: "message", sequence_number: 2 });
    expect(await bob.next({ type: "message" })).toMatchObject({
      event: "member.removed",
      payload: { user_id: "bob" },
    });
    expect(await bob.next({})).toEqual({ type: "unsubscribed", conversation_id, code: "member_removed" });
    expect(await bob.ask({ type: "subscribe", conversation_id })).toMatchObject({
      type: "error",
      status: 403,
    });
    expect(bob.frames.filter(({ type }) => type === "message")).toHaveLength(1);
  });
});

describe("a token that holds no longer", () => {
  test("closes the socket with 1008 when it expires, though the client says nothing", async () => {
    using ann = await connect("ann", { life: 1 });
    expect(await ann.next({ type: "error" })).toMatchObject(error(401, "token_expired"));
    expect(await ann.closed()).toBe(1008);
  });

  test("closes the socket when it was revoked, at once by word of another instance", async () => {
    await using other = await openApp(stand, redis.url);
    using ann = await connect("ann", { id: "token-1" });
    const startedAt = performance.now();
    other.hub.revoke(["token-1"]);
    expect(await ann.next({ type: "error" })).toMatchObject(error(401, "token_revoked"));
    expect(await ann.closed()).toBe(1008);
    expect(performance.now() - startedAt).toBeLessThan(500);
  });

  test("closes the socket when it was revoked and no word came, by asking", async () => {
    using ann = await connect("ann", { id: "token-2" });
    app.revoked.add("token-2");
    expect(await ann.next({ type: "error" })).toMatchObject(error(401, "token_revoked"));
    expect(await ann.closed()).toBe(1008);
  });

  test("subscribes to nothing", async () => {
    const conversation_id = await stand.makeGroup("ann");
    using ann = await connect("ann", { id: "token-3" });
    app.revoked.add("token-3");
    expect(await ann.ask({ type: "subscribe", conversation_id })).toMatchObject(error(401, "token_revoked"));
    expect(await ann.closed()).toBe(1008);
  });
});

describe("temporary states", () => {
  test("typing and receipts reach the others and not their origin", async () => {
    const conversation_id = await stand.makeGroup("ann", "bob");
    await using other = await openApp(stand, redis.url);
    using ann = await connect("ann");
    using bob = await connect("bob", {}, other);
    for (const socket of [ann, bob]) await socket.ask({ type: "subscribe", conversation_id });
    // A temporary state is lost on an instance that does not listen yet.
    let asked = 0;
    const isHeard = async () => {
      await ann.ask({ type: "receipt", conversation_id, delivered: 1, read: 1 });
      asked += 1;
      return bob.frames.some(({ type }) => type === "receipt");
    };
    await until(isHeard, "bob's instance hears ann's");
    ann.send({ type: "typing", conversation_id });
    ann.send({ type: "typing", conversation_id });
    expect(await bob.next({ type: "typing" })).toEqual({ type: "typing", conversation_id, user_id: "ann" });
    await ann.ask({ type: "receipt", conversation_id, delivered: 3, read: 2 });
    expect(await bob.next({ type: "receipt", delivered: 3 })).toEqual({
      type: "receipt",
      conversation_id,
      user_id: "ann",
      delivered: 3,
      read: 2,
    });
    expect(bob.frames.filter(({ type }) => type === "typing")).toHaveLength(1);
    expect(ann.frames.filter(({ type }) => type === "typing")).toHaveLength(0);
    expect(ann.frames.filter(({ type }) => type === "receipt")).toHaveLength(asked + 1);
  });

  test("a user is online from the first socket to the last, on whatever instance", async () => {
    const conversation_id = await stand.makeGroup("ann", "bob");
    await using other = await openApp(stand, redis.url);
    const presence = (status: string) => ({ type: "presence", conversation_id, user_id: "bob", status });
    using ann = await connect("ann");
    await ann.ask({ type: "subscribe", conversation_id });
    const first = await connect("bob");
    await first.ask({ type: "subscribe", conversation_id });
    expect(await ann.next({ type: "presence" })).toEqual(presence("online"));
    expect(await first.next({ type: "presence" })).toEqual({ ...presence("online"), user_id: "ann" });
    const second = await connect("bob", {}, other);
    await second.ask({ type: "subscribe", conversation_id });
    await second.next({ type: "presence", user_id: "ann" });
    first[Symbol.dispose]();
    await first.closed();
    await second.ask({ type: "unsubscribe", conversation_id });
    expect(await ann.next({ type: "presence" })).toEqual(presence("offline"));
    expect(ann.frames.filter(({ type }) => type === "presence")).toHaveLength(2);
    second[Symbol.dispose]();
  });
});

test("users of an instance that died are told to be offline by whoever notices", async () => {
  const conversation_id = await stand.makeGroup("ann", "bob");
  await using testHub = await stand.openHub(redis.url);
  const entry = `${crypto.randomUUID()} bob`;
  const add = "return redis.call('ZADD', KEYS[1], 1, ARGV[1])";
  using ann = await connect("ann");
  await ann.ask({ type: "subscribe", conversation_id });
  await testHub.redis.evaluate(add, [`presence:${conversation_id}`], [entry]);
  using again = await connect("ann");
  await again.ask({ type: "subscribe", conversation_id });
  expect(await ann.next({ type: "presence" })).toMatchObject({ user_id: "bob", status: "offline" });
});

test("a socket that does not read is closed with 1013, having got no more than was buffered", async () => {
  const conversation_id = await stand.makeGroup("ann");
  const slow = await openSlowSocket(app.url, tokenOf({ user: "ann" }));
  slow.send({ type: "subscribe", conversation_id });
  await until(() => slow.text().includes("subscribed"), "it is subscribed");
  slow.stopReading();
  const before = app.connections.size;
  const text = "x".repeat(4000);
  await until(
    async () => {
      app.hub.publish(await stand.commit(conversation_id, 200, text));
      return app.connections.size < before;
    },
    "it is closed",
    20_000,
  );
  expect(await slow.closeCode()).toBe(1013);
});

test("a socket that reads history slowly is waited for, and gets all of it", async () => {
  const conversation_id = await stand.makeGroup("ann");
  await stand.commit(conversation_id, 3000, "x".repeat(4000));
  const slow = await openSlowSocket(app.url, tokenOf({ user: "ann" }));
  slow.send({ type: "subscribe", conversation_id, after: 0 });
  await until(() => slow.text().includes("subscribed"), "it is subscribed");
  slow.stopReading();
  await Bun.sleep(300);
  slow.readOn();
  await until(() => slow.text().includes('"sequence_number":3000,'), "the last one is there", 20_000);
});

test("a drain closes every socket with 1012 and lets none in", async () => {
  const draining = await openApp(stand, redis.url);
  using ann = await connect("ann", {}, draining);
  draining.connections.closeAll();
  expect(await ann.closed()).toBe(1012);
  const again = await fetch(
    `${draining.url}/v1/stream?access_token=${encodeURIComponent(tokenOf({ user: "ann" }))}`,
  );
  expect(again.status).toBe(503);
  await draining[Symbol.asyncDispose]();
});

/** A WebSocket by hand, which can stop reading: clients of the platform always read on. */
async function openSlowSocket(url: string, token: string) {
  const { port } = new URL(url);
  const socket = net.connect(Number(port), "127.0.0.1");
  const chunks: Buffer[] = [];
  socket.on("data", (chunk) => chunks.push(chunk));
  socket.on("error", () => undefined);
  const path = `/v1/stream?access_token=${encodeURIComponent(token)}`;
  const upgrade = [
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
  ];
  socket.write([`GET ${path} HTTP/1.1`, "Host: localhost", ...upgrade, "", ""].join("\r\n"));
  const text = () => Buffer.concat(chunks).toString("latin1");
  await until(() => text().includes("hello"), "the socket is open");
  return {
    text,
    send(frame: unknown) {
      const body = Buffer.from(JSON.stringify(frame));
      // A masked text frame; a mask of zeros leaves the bytes as they are (RFC 6455, 5.2).
      socket.write(
        Buffer.concat([
          Buffer.from([0x81, 0x80 | 126, body.length >> 8, body.length & 255, 0, 0, 0, 0]),
          body,
        ]),
      );
    },
    stopReading: () => socket.pause(),
    readOn: () => socket.resume(),
    /** Reads on to the end, and answers the code of the close frame. */
    async closeCode(): Promise<number | undefined> {
      const { promise, resolve } = Promise.withResolvers<void>();
      socket.on("close", () => resolve());
      socket.resume();
      await promise;
      const all = Buffer.concat(chunks);
      const reason = all.lastIndexOf("too slow");
      return reason < 2 ? undefined : all.readUInt16BE(reason - 2);
    },
  };
}
