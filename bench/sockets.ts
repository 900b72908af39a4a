// What sockets cost a node: ten thousand that are idle, a thousand that subscribe and do not read, and as many
// subscriptions as a node takes. Sockets that do not read must be closed with 1013 while the node's memory has a bound,
// and whoever reads gets everything in order all the time; what is beyond a bound must be refused as documented.
//
// Arrives: nothing. Leaves: a table on standard output; exit code 1 if it was wrong. Everything it starts is stopped again.
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readOptions } from "../deploy/local/options.ts";
import { startServices } from "../deploy/local/services.ts";
import { rssOf } from "./measure.ts";
import { type Bench, openBench, userToken } from "./prepare.ts";

const help = `Usage: bun bench/sockets.ts [--idle 10000] [--slow 1000] [--seconds 20]

What sockets cost a node: many that are idle, many that do not read, and as many subscriptions as a node takes.`;

const values = readOptions(help, { idle: 10_000, slow: 1_000, seconds: 20 });
const { seconds } = values;
const openedAtOnce = 100;
const text = "x".repeat(4_000);
const subscriptionsOfSocket = 1_000;
const subscriptionsOfNode = 250_000;
const slowMsMax = 120_000;
const clockTicksPerSecond = 100;

/** A socket that answers frames in the order in which it asked. */
interface Client {
  ask(frame: Record<string, unknown>): Promise<Record<string, unknown>>;
  close(): void;
}

const directory = await mkdtemp(join(tmpdir(), "chat4all-bench-"));
const report = (line: string) => console.error(line);
const services = await startServices({
  dataDirectory: directory,
  report,
  forTests: true,
  given: { kafkaBrokers: "" },
});
try {
  await using bench = await openBench(services, directory, "api");
  await rest(bench);
  await overrun(bench);
  await subscribeToEverything(bench);
} finally {
  await services.stop();
  await rm(directory, { recursive: true, force: true });
}

/** Sockets that only are there. */
async function rest(bench: Bench): Promise<void> {
  const count = values.idle;
  const before = await rssOf(bench.server.pid);
  const idle = await inGroups(count, async (index) =>
    openClient(bench, await userToken(bench.prepared, `user-${index}`)),
  );
  await Bun.sleep(2_000);
  const rssMiB = await rssOf(bench.server.pid);
  const cpuMs = await cpuMsOf(bench.server.pid);
  await Bun.sleep(seconds * 1000);
  const cpuMsPerSecond = ((await cpuMsOf(bench.server.pid)) - cpuMs) / seconds;
  const askedAtMs = performance.now();
  const answers = await Promise.all(idle.map((client) => client.ask({ type: "ping" })));
  const pingedMs = performance.now() - askedAtMs;
  expectAll(answers, ({ type }) => type === "pong", "an idle socket did not answer");
  for (const client of idle) client.close();
  console.log(
    `${count} idle sockets: ${((1024 * (rssMiB - before)) / count).toFixed(1)} KiB each (${rssMiB.toFixed(0)} MiB resident), ` +
      `${cpuMsPerSecond.toFixed(0)} ms of CPU a second; all of them answered a ping within ${pingedMs.toFixed(0)} ms.`,
  );
}

/** Sockets that subscribe and do not read, beside one that does. */
async function overrun(bench: Bench): Promise<void> {
  const count = values.slow;
  const conversationId = bench.conversationIds[0] ?? "";
  await post(bench, conversationId);
  const numbers: number[] = [];
  const reader = await openClient(bench, bench.token, ({ type, sequence_number }) => {
    if (type === "message") numbers.push(Number(sequence_number));
  });
  await reader.ask({ type: "subscribe", conversation_id: conversationId, after: 0 });
  const others = await openConnections(bench);
  const slow = await inGroups(count, () => openSlow(bench, conversationId));
  const before = await rssOf(bench.server.pid);
  for (const socket of slow) socket.pause();

  const acceptMs: number[] = [];
  let sent = 1;
  let rssMiBMax = before;
  const startedAtMs = performance.now();
  while ((await openConnections(bench)) > others) {
    if (performance.now() - startedAtMs > slowMsMax) throw new Error("sockets that do not read stay open");
    const askedAtMs = performance.now();
    await post(bench, conversationId);
    acceptMs.push(performance.now() - askedAtMs);
    sent += 1;
    rssMiBMax = Math.max(rssMiBMax, await rssOf(bench.server.pid));
  }
  const tookMs = performance.now() - startedAtMs;
  while (numbers.length < sent) {
    if (performance.now() - startedAtMs > slowMsMax) throw new Error("the socket that reads lacks messages");
    await Bun.sleep(10);
  }
  expectAll(numbers, (number, index) => number === index + 1, "the socket that reads has a gap or a repeat");
  const codes = await Promise.all(slow.map((socket) => socket.closeCode()));
  const told = codes.filter((code) => code === 1013).length;
  expectAll(codes, (code) => code === 1013 || code === null, "a slow socket was closed with another code");
  reader.close();
  const p99Ms = acceptMs.toSorted((a, b) => a - b)[Math.floor(acceptMs.length * 0.99)] ?? 0;
  console.log(
    `${count} sockets that do not read, ${sent} messages of ${text.length / 1000} kB in ${(tookMs / 1000).toFixed(1)} s: all of them ended, ${told} told 1013, ` +
      `${count - told} cut off; memory from ${before.toFixed(0)} to ${rssMiBMax.toFixed(0)} MiB at most; p99 of accepting ${p99Ms.toFixed(0)} ms; ` +
      "the one that reads got everything in order.",
  );
}

/** Sockets that subscribe to all that they may, until the node takes no more. */
async function subscribeToEverything(bench: Bench): Promise<void> {
  const before = await rssOf(bench.server.pid);
  const startedAtMs = performance.now();
  const sockets = subscriptionsOfNode / subscriptionsOfSocket;
  const clients: Client[] = [];
  const subscribe = (client: Client, index: number) =>
    client.ask({ type: "subscribe", conversation_id: bench.conversationIds[index] });
  for (let opened = 0; opened < sockets; opened += 1) {
    const client = await openClient(bench, bench.token);
    clients.push(client);
    // Fewer than the frames that a socket may have under way.
    for (let from = 0; from < subscriptionsOfSocket; from += 200) {
      const answers = await Promise.all(
        Array.from({ length: 200 }, (_, index) => subscribe(client, from + index)),
      );
      expectAll(answers, ({ type }) => type === "subscribed", "a subscription was refused");
    }
  }
  const tookMs = performance.now() - startedAtMs;
  const rssMiB = await rssOf(bench.server.pid);
  const beyond = [
    await subscribe(clients[0] as Client, subscriptionsOfSocket),
    await subscribe(await openClient(bench, bench.token), 0),
  ].map(({ status, code }) => [status, code].join(" "));
  expectAll(
    beyond,
    (answer, index) => answer === `${index === 0 ? 429 : 503} too_many_subscriptions`,
    `what is beyond the bounds was answered with ${beyond.join(", ")}`,
  );
  for (const client of clients) client.close();
  console.log(
    `${subscriptionsOfNode} subscriptions of ${sockets} sockets in ${(tookMs / 1000).toFixed(0)} s: ` +
      `${((1024 * (rssMiB - before)) / subscriptionsOfNode).toFixed(2)} KiB each (${rssMiB.toFixed(0)} MiB resident); the next are answered with ${beyond.join(" and ")}.`,
  );
}

async function openClient(
  { server }: Bench,
  token: string,
  onFrame: (frame: Record<string, unknown>) => void = () => undefined,
): Promise<Client> {
  const socket = new WebSocket(`${server.url.replace("http", "ws")}/v1/stream?access_token=${token}`);
  const waiting = new Map<string, (frame: Record<string, unknown>) => void>();
  const { promise: greeted, resolve, reject } = Promise.withResolvers<void>();
  let refs = 0;
  socket.addEventListener("message", ({ data }) => {
    const frame = JSON.parse(String(data));
    if (frame.type === "hello") resolve();
    else if (frame.ref === undefined) onFrame(frame);
    else waiting.get(frame.ref)?.(frame);
  });
  socket.addEventListener("close", ({ code }) => reject(new Error(`a socket was closed with ${code}`)));
  await greeted;
  return {
    ask(frame) {
      const ref = String((refs += 1));
      socket.send(JSON.stringify({ ...frame, ref }));
      return new Promise((answer) => waiting.set(ref, answer)).then((found) => {
        waiting.delete(ref);
        return found as Record<string, unknown>;
      });
    },
    close: () => socket.close(),
  };
}

/** A socket by hand (RFC 6455), subscribed, which can stop reading. */
async function openSlow({ server, token }: Bench, conversationId: string) {
  const socket = connect(Number(new URL(server.url).port), "127.0.0.1");
  let last = Buffer.alloc(0);
  const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
  socket.on("error", () => undefined);
  const key = Buffer.from(crypto.getRandomValues(new Uint8Array(16))).toString("base64");
  socket.write(
    `GET /v1/stream?access_token=${token} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
      `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${key}\r\n\r\n`,
  );
  await untilHeard(socket, "hello");
  const frame = Buffer.from(JSON.stringify({ type: "subscribe", conversation_id: conversationId }));
  // A masked text frame; a mask of zeros leaves the bytes as they are.
  socket.write(Buffer.concat([Buffer.from([0x81, 0x80 | frame.length, 0, 0, 0, 0]), frame]));
  await untilHeard(socket, "subscribed");
  return {
    pause: () => socket.pause(),
    /** Reads to the end, and answers the code of the last frame if that was a close. */
    async closeCode(): Promise<number | null> {
      socket.on("data", (chunk) => {
        last = Buffer.concat([last, chunk]).subarray(-200);
      });
      socket.resume();
      await closed;
      const reason = last.lastIndexOf("too slow");
      return reason < 2 ? null : last.readUInt16BE(reason - 2);
    },
  };
}

function untilHeard(socket: Socket, word: string): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const listen = (chunk: Buffer) => {
    if (chunk.includes(word)) resolve();
  };
  const fail = () => reject(new Error(`a socket ended before its ${word}`));
  socket.on("data", listen).once("close", fail);
  return promise.finally(() => socket.off("data", listen).off("close", fail));
}

async function post({ server, token }: Bench, conversationId: string): Promise<void> {
  const body = {
    message_id: crypto.randomUUID(),
    conversation_id: conversationId,
    payload: { type: "text", text },
  };
  const answer = await fetch(`${server.url}/v1/messages`, {
    method: "POST",
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  if (answer.status !== 202) throw new Error(`a message was answered with ${answer.status}`);
}

/** Connections that the node has open: of its port, in the state ESTABLISHED (proc_pid_net(5)). */
async function openConnections({ server }: Bench): Promise<number> {
  const port = Number(new URL(server.url).port).toString(16).toUpperCase().padStart(4, "0");
  const table = await readFile("/proc/net/tcp", "utf8");
  return table.match(new RegExp(`^ *\\d+: \\w+:${port} \\w+:\\w+ 01 `, "gm"))?.length ?? 0;
}

async function cpuMsOf(pid: number): Promise<number> {
  const fields = (await readFile(`/proc/${pid}/stat`, "utf8")).replace(/^.*\) /, "").split(" ");
  return ((Number(fields[11]) + Number(fields[12])) * 1000) / clockTicksPerSecond;
}

/** Makes so many, some at a time. */
async function inGroups<T>(count: number, make: (index: number) => Promise<T>): Promise<T[]> {
  const made: T[] = [];
  while (made.length < count) {
    const group = Array.from({ length: Math.min(openedAtOnce, count - made.length) }, (_, index) =>
      make(made.length + index),
    );
    made.push(...(await Promise.all(group)));
  }
  return made;
}

function expectAll<T>(all: readonly T[], isRight: (one: T, index: number) => boolean, wrong: string): void {
  if (!all.every(isRight)) throw new Error(wrong);
}
