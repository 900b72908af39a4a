// The queue before the batch function, on a real Postgres behind a proxy that can hold it up: what is beyond a bound is
// refused at once and not stored, what was taken is stored and answered.
import { afterAll, beforeAll, expect, test } from "bun:test";
import {
  type CollectorSettings,
  collectorDefaults,
  type IncomingMessage,
  openCollector,
} from "../../src/ingest/collector.ts";
import { Problem } from "../../src/model/errors.ts";
import { openPostgres, type Postgres } from "../../src/platform/postgres.ts";
import { Stand } from "../deliver/stand.ts";
import { type FaultProxy, passAll, startFaultProxy } from "../support/fault-proxy.ts";
import { until } from "../support/until.ts";

let stand: Stand;
let proxy: FaultProxy;
let postgres: Postgres;
let conversationIds: string[];
beforeAll(async () => {
  stand = await Stand.open();
  const url = new URL(stand.databaseUrl);
  proxy = await startFaultProxy({ target: Number(url.port) });
  url.port = String(proxy.port);
  postgres = openPostgres({
    url: url.href,
    connectionsMax: collectorDefaults.batchesMax,
    applicationName: "chat4all test",
    connectTimeoutSeconds: 5,
    statementTimeoutMs: 20_000,
  });
  conversationIds = await Promise.all(Array.from({ length: 20 }, () => stand.makeGroup("ann")));
});
afterAll(async () => {
  await postgres?.close();
  await proxy?.stop();
  await stand?.[Symbol.asyncDispose]();
});

function messages(count: number, text = "x"): IncomingMessage[] {
  return Array.from({ length: count }, (_, index) => ({
    conversationId: conversationIds[index % conversationIds.length] as string,
    senderId: "ann",
    messageId: crypto.randomUUID(),
    payload: JSON.stringify({ type: "text", text }),
    metadata: null,
    traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    tokenIds: [],
  }));
}

function open(changes: Partial<CollectorSettings> = {}) {
  return openCollector(postgres, { ...collectorDefaults, ...changes }, () => undefined);
}

/** Holds up every answer of Postgres until it is called. */
function stall(): () => void {
  const { promise, resolve } = Promise.withResolvers<void>();
  proxy.fault = ({ direction }) => (direction === "answer" ? promise.then(() => "pass" as const) : "pass");
  return () => {
    proxy.fault = passAll;
    resolve();
  };
}

async function storedOf(sent: readonly IncomingMessage[]): Promise<Set<string>> {
  const ids = sent.map((message) => message.messageId);
  const rows = await stand.postgres.query<{ id: string }>(
    "select message_id as id from messages where message_id = any($1)",
    [ids],
  );
  return new Set(rows.map((row) => row.id));
}

// While Postgres stands still the queue is offered far more than it holds, in several goes.
async function offerWhileStalled(collector: ReturnType<typeof open>, offered: IncomingMessage[]) {
  const goOn = stall();
  let refused = 0;
  const outcomes = Promise.allSettled(
    offered.map((message) =>
      collector.accept(message).catch((error: unknown) => {
        refused += 1;
        throw error;
      }),
    ),
  );
  await until(() => refused > 0, "some are refused, while Postgres still stands");
  const pending = collector.pending();
  goOn();
  const accepted: IncomingMessage[] = [];
  const refusals: { message: IncomingMessage; problem: unknown }[] = [];
  for (const [index, outcome] of (await outcomes).entries()) {
    const message = offered[index] as IncomingMessage;
    if (outcome.status === "fulfilled") accepted.push(message);
    else refusals.push({ message, problem: outcome.reason });
  }
  return { pending, accepted, refusals };
}

async function expectHonest(found: Awaited<ReturnType<typeof offerWhileStalled>>) {
  for (const { problem } of found.refusals) {
    expect(problem).toBeInstanceOf(Problem);
    expect(problem).toMatchObject({ status: 503, code: "overloaded", retryAfterSeconds: 1 });
  }
  expect(await storedOf(found.accepted)).toEqual(new Set(found.accepted.map(({ messageId }) => messageId)));
  expect(await storedOf(found.refusals.map(({ message }) => message))).toEqual(new Set());
}

test("a stalled Postgres fills the queue up to its messages, and all that was taken is stored and answered", async () => {
  const collector = open({ pending: { rowsMin: 512, rowsMax: 2400, waitMsTarget: 100 } });
  const found = await offerWhileStalled(collector, messages(3000));
  expect(found.pending).toBe(600);
  expect(found.accepted).toHaveLength(600);
  await expectHonest(found);
  expect(collector.pending()).toBe(0);
  expect(collector.isFull()).toBe(false);
});

test("a stalled Postgres fills the queue up to its bytes", async () => {
  const collector = open({ pendingBytesMax: 100_000 });
  const found = await offerWhileStalled(collector, messages(400, "x".repeat(1000)));
  // The one that reaches the bound is the last.
  expect(found.accepted).toHaveLength(
    Math.ceil(100_000 / JSON.stringify({ type: "text", text: "x".repeat(1000) }).length),
  );
  await expectHonest(found);
});

test("messages that had to wait too long for their batch make the queue shorter", async () => {
  const pending = { rowsMin: 512, rowsMax: 8192, waitMsTarget: 100 };
  const collector = open({ pending, batchRowsMax: 256 });
  const places: number[] = [];
  for (let round = 0; round < 4; round += 1) {
    const goOn = stall();
    const taken = messages(pending.rowsMax).map((message) =>
      collector.accept(message).catch(() => undefined),
    );
    places.push(collector.pending());
    await Bun.sleep(2 * pending.waitMsTarget);
    goOn();
    await Promise.all(taken);
  }
  expect(places[0]).toBe(pending.rowsMax / 4);
  expect(places[3]).toBeLessThan(pending.rowsMax / 8);
  expect(places[3]).toBeGreaterThanOrEqual(pending.rowsMin);
});

test("a whole batch request is taken however slow things were", async () => {
  const collector = open({ pending: { rowsMin: 512, rowsMax: 512, waitMsTarget: 0 } });
  const outcomes = await Promise.all(messages(500).map((message) => collector.accept(message)));
  expect(outcomes.every(({ outcome }) => outcome === "accepted")).toBe(true);
});

test("numbers stay 1..n in every conversation", async () => {
  const wrong = await stand.postgres.query(
    `select conversation_id from messages group by conversation_id
     having count(*) <> max(sequence_number) or min(sequence_number) <> 1`,
  );
  expect(wrong).toEqual([]);
});
