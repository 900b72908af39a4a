// Kafka away, in each of the ways in which it can be: who sends and reads notices nothing, the outbox keeps all, and
// publishing goes on by itself when it is back.
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { type KafkaBroker, type KafkaCluster, startKafkaCluster } from "../../deploy/local/kafka.ts";
import { topicNames } from "../../src/config.ts";
import { readTopic } from "../../src/platform/kafka.ts";
import { dropAll, type FaultProxy, passAll, startFaultProxy } from "../support/fault-proxy.ts";
import { startServer, type TestServer } from "../support/server.ts";
import { openSocket, type TestSocket } from "../support/socket.ts";
import { until } from "../support/until.ts";
import { firstOccurrences, kafkaOf, numbersOf, untilRouted, upTo } from "../support/walk.ts";
import { Folder } from "./own-node.ts";

setDefaultTimeout(90_000);

const folder = new Folder();
let proxy: FaultProxy;
let cluster: KafkaCluster;
let broker: KafkaBroker;
let server: TestServer;

beforeAll(async () => {
  proxy = await startFaultProxy();
  cluster = await startKafkaCluster({
    dataDirectory: folder.path,
    report: () => undefined,
    anyPort: true,
    brokers: 1,
    advertise: (_index, port) => {
      proxy.target = port;
      return proxy.port;
    },
  });
  broker = cluster.brokers[0] as KafkaBroker;
  server = await startServer({ KAFKA_BROKERS: cluster.bootstrap });
});

afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
  await cluster?.stop();
  await proxy?.stop();
  folder[Symbol.dispose]();
});

const conversationIds: string[] = [];
// A little longer than the 5 s after which a request is sent again: what is lost then would be waited for just as long.
const awayMs = 5_800;
/** Three seconds, and a busy machine; without a look at the broker a lost request is waited for up to 5 s longer. */
const resumedMsMax = 4_000;
const senders = 4;

const waysToGo = {
  paused: {
    go: () => void process.kill(broker.pid, "SIGSTOP"),
    comeBack: () => void process.kill(broker.pid, "SIGCONT"),
  },
  "behind a network that swallows everything": {
    go: () => void (proxy.fault = dropAll),
    comeBack: () => void (proxy.fault = passAll),
  },
  killed: { go: () => broker.kill(), comeBack: () => broker.start() },
};

for (const [how, { go, comeBack }] of Object.entries(waysToGo)) {
  test(`nobody notices, and publishing goes on in order, when Kafka is ${how}`, async () => {
    const ids = await Promise.all(upTo(8).map(() => server.makeGroup(["bob"])));
    conversationIds.push(...ids);
    using socket = openSocket(server.url, await server.token("bob"));
    await socket.next({ type: "hello" });
    for (const id of ids) await socket.ask({ type: "subscribe", conversation_id: id });
    const before = await sendFor(ids, 1_000);
    await until(async () => (await outboxRows()) === 0, "all is published");

    await go();
    const meanwhile = await sendFor(ids, awayMs);
    expect(meanwhile.statuses).toEqual(new Set([202]));
    expect(meanwhile.p99Ms).toBeLessThan(5 * before.p99Ms + 50);
    const waiting = await outboxRows();
    expect(waiting).toBeGreaterThan(0);
    expectAllSeen(socket, before.count + meanwhile.count);

    await comeBack();
    const backAtMs = performance.now();
    await until(async () => (await outboxRows()) < waiting, "publishing goes on");
    expect(performance.now() - backAtMs).toBeLessThan(resumedMsMax);
    await until(async () => (await outboxRows()) === 0, "the outbox is empty");
    // It drains faster than it filled.
    expect(performance.now() - backAtMs).toBeLessThan(awayMs);
  });
}

test("everything is on the topics in order in the end", async () => {
  await untilRouted(server.postgres, 30_000);
  const stored = await lastNumbers(conversationIds);
  expect(stored.size).toBe(8 * Object.keys(waysToGo).length);
  const { outbox, events } = topicNames(server.config);
  for (const topic of [outbox, events]) {
    const numbers = numbersOf(await readTopic(kafkaOf(server.config), topic));
    for (const [id, last] of stored) expect(firstOccurrences(numbers.get(id) ?? [])).toEqual(upTo(last));
  }
});

/** A few senders, one message after the other each. */
async function sendFor(ids: string[], durationMs: number) {
  const endMs = performance.now() + durationMs;
  const tookMs: number[] = [];
  const statuses = new Set<number>();
  const send = async (sender: number) => {
    for (let turn = sender; performance.now() < endMs; turn += senders) {
      const startedAtMs = performance.now();
      const { status } = await server.post(ids[turn % ids.length] as string, `message ${turn}`);
      tookMs.push(performance.now() - startedAtMs);
      statuses.add(status);
      await Bun.sleep(10);
    }
  };
  await Promise.all(upTo(senders).map(send));
  const p99Ms = tookMs.toSorted((one, other) => one - other)[Math.floor(tookMs.length * 0.99)] ?? 0;
  return { count: tookMs.length, statuses, p99Ms };
}

function expectAllSeen({ frames }: TestSocket, count: number) {
  const seen = frames.filter((frame) => frame.type === "message");
  expect(seen.length).toBe(count);
}

async function outboxRows(): Promise<number> {
  return (await server.postgres.query("select from outbox")).length;
}

async function lastNumbers(ids: string[]): Promise<Map<string, number>> {
  const rows = await server.postgres.query<{ id: string; last_sequence_number: number }>(
    "select id, last_sequence_number from conversations where id = any ($1::uuid[])",
    [ids],
  );
  return new Map(rows.map((row) => [row.id, row.last_sequence_number]));
}
