// Many sockets, slow ones and greedy ones: each costs no more than its bound, and is told so.
import { afterAll, beforeAll, expect, test } from "bun:test";
import net from "node:net";
import { openApp, type TestApp, tokenOf } from "../deliver/app.ts";
import { OwnRedis } from "../deliver/own-redis.ts";
import { range, Stand } from "../deliver/stand.ts";
import { openSocket, type TestSocket } from "../support/socket.ts";
import { until } from "../support/until.ts";

const unreadBytesMax = 2 * 1024 * 1024;
let stand: Stand;
let app: TestApp;
const redis = new OwnRedis();
beforeAll(async () => {
  stand = await Stand.open();
  await redis.start();
  app = await openApp(stand, redis.url, {}, { unreadBytesMax });
});
afterAll(async () => {
  await app[Symbol.asyncDispose]();
  await redis[Symbol.asyncDispose]();
  await stand[Symbol.asyncDispose]();
});

/** A socket that was greeted. */
async function connect(user: string): Promise<TestSocket> {
  const socket = openSocket(app.url, tokenOf({ user }));
  await socket.next({ type: "hello" });
  return socket;
}

test("slow sockets have a budget together: those beyond it are closed with 1013, and resume without a gap", async () => {
  const conversation_id = await stand.makeGroup("ann");
  const slow = await Promise.all(Array.from({ length: 12 }, () => openRawSocket(conversation_id)));
  using reader = await connect("ann");
  await reader.ask({ type: "subscribe", conversation_id });
  const before = app.connections.size;
  for (const socket of slow) socket.pause();

  let last = 0;
  let mostUnread = 0;
  await until(
    async () => {
      const events = await stand.commit(conversation_id, 20, "x".repeat(4000));
      app.hub.publish(events);
      last = events.at(-1)?.sequence_number ?? 0;
      mostUnread = Math.max(mostUnread, app.connections.backlog.bytes);
      return app.connections.size < before - 4;
    },
    "some are closed",
    20_000,
  );
  // Far below what each may have unread, which is a mebibyte.
  expect(mostUnread).toBeLessThanOrEqual(2 * unreadBytesMax);

  const closed = (await Promise.all(slow.map((socket) => socket.readToEnd()))).filter(
    ({ code }) => code !== null,
  );
  expect(closed.length).toBeGreaterThanOrEqual(4);
  // One that was ended by the last of these events has it.
  const next = await stand.commit(conversation_id, 1, "next");
  app.hub.publish(next);
  last += next.length;
  for (const { code, numbers } of closed) {
    expect(code).toBe(1013);
    expect(numbers).toEqual(range(0, numbers.length));
    using again = await connect("ann");
    await again.ask({ type: "subscribe", conversation_id, after: numbers.length });
    await again.next({ type: "message", sequence_number: last });
    const rest = again.frames.filter(({ type }) => type === "message");
    expect(rest.map((frame) => frame.sequence_number)).toEqual(range(numbers.length, last));
  }
  await reader.next({ type: "message", sequence_number: last });
});

test("a socket has at most 1,000 subscriptions, and is told 429 beyond", async () => {
  const conversationIds = await Promise.all(Array.from({ length: 1001 }, () => stand.makeGroup("greedy")));
  using greedy = await connect("greedy");
  for (let start = 0; start < 1000; start += 100) {
    await Promise.all(
      conversationIds
        .slice(start, start + 100)
        .map((conversation_id) => greedy.ask({ type: "subscribe", conversation_id })),
    );
  }
  expect(greedy.frames.filter(({ type }) => type === "subscribed")).toHaveLength(1000);
  const [first, , last] = [conversationIds[0], null, conversationIds[1000]];
  const beyond = await greedy.ask({ type: "subscribe", conversation_id: last });
  expect(beyond).toMatchObject({ type: "error", status: 429, code: "too_many_subscriptions" });
  await greedy.ask({ type: "unsubscribe", conversation_id: first });
  expect(await greedy.ask({ type: "subscribe", conversation_id: last })).toMatchObject({
    type: "subscribed",
  });
});

test("hundreds of idle sockets have nothing buffered, and leave nothing behind", async () => {
  await until(() => app.connections.size === 0, "those of the other tests are gone");
  const sockets = await Promise.all(Array.from({ length: 400 }, (_, index) => connect(`idle ${index}`)));
  expect(app.connections.size).toBe(400);
  expect(app.connections.backlog.bytes).toBe(0);
  for (const socket of sockets) socket[Symbol.dispose]();
  await until(() => app.connections.size === 0, "they are forgotten");
});

/** A WebSocket by hand, subscribed, which can stop reading. */
async function openRawSocket(conversation_id: string) {
  const socket = net.connect(Number(new URL(app.url).port), "127.0.0.1");
  const chunks: Buffer[] = [];
  socket.on("data", (chunk) => chunks.push(chunk));
  socket.on("error", () => undefined);
  const text = () => Buffer.concat(chunks).toString("latin1");
  const upgrade =
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==";
  const path = `/v1/stream?access_token=${encodeURIComponent(tokenOf({ user: "ann" }))}`;
  socket.write(`GET ${path} HTTP/1.1\r\nHost: localhost\r\n${upgrade}\r\n\r\n`);
  await until(() => text().includes("hello"), "the socket is open");
  const frame = Buffer.from(JSON.stringify({ type: "subscribe", conversation_id }));
  // A masked text frame; a mask of zeros leaves the bytes as they are (RFC 6455, 5.2).
  socket.write(Buffer.from([0x81, 0x80 | frame.length, 0, 0, 0, 0]));
  socket.write(frame);
  await until(() => text().includes("subscribed"), "it is subscribed");
  return {
    pause: () => socket.pause(),
    /** Reads on: to its end, or until nothing has come for a while. */
    async readToEnd(): Promise<{ code: number | null; numbers: number[] }> {
      const ended = new Promise<void>((resolve) => socket.on("close", () => resolve()));
      socket.resume();
      await Promise.race([ended, Bun.sleep(3000)]);
      socket.destroy();
      const all = Buffer.concat(chunks);
      const reason = all.lastIndexOf("too slow");
      const numbers = [...all.toString("latin1").matchAll(/"sequence_number":(\d+),/g)].map(([, n]) =>
        Number(n),
      );
      return { code: reason === -1 ? null : all.readUInt16BE(reason - 2), numbers };
    },
  };
}
