// The Kafka file against three real brokers behind proxies. First what kafkajs alone does there: it reports success
// for records that are not in the log. Those tests fail when an upgrade cures it; then its guard may be lifted. It has
// two more faults, with one send at a time over two brokers, which show or not as it picks a broker at random.

import { afterAll, afterEach, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Admin, Kafka, logLevel, type Producer } from "kafkajs";
import { type KafkaCluster, startKafkaCluster } from "../../deploy/local/kafka.ts";
import {
  ensureTopics,
  type KafkaRecord,
  type KafkaSettings,
  openPublisher,
  readTopic,
  runConsumer,
} from "../../src/platform/kafka.ts";
import {
  type Fault,
  type FaultProxy,
  once,
  passAll,
  startFaultProxy,
  type Verdict,
} from "../support/fault-proxy.ts";
import { kafkaProtocol } from "../support/kafka-protocol.ts";

setDefaultTimeout(60_000);

const never = new AbortController().signal;
const dataDirectory = mkdtempSync(join(tmpdir(), "chat4all-kafka-"));
let proxies: FaultProxy[] = [];
let cluster: KafkaCluster;
let settings: KafkaSettings;
let admin: Admin;

beforeAll(async () => {
  proxies = await Promise.all([1, 2, 3].map(() => startFaultProxy({ protocol: kafkaProtocol })));
  cluster = await startKafkaCluster({
    dataDirectory,
    report: () => {},
    anyPort: true,
    brokers: 3,
    advertise: (index, port) => {
      const proxy = proxies[index] as FaultProxy;
      proxy.target = port;
      return proxy.port;
    },
  });
  settings = { brokers: cluster.bootstrap.split(","), clientId: "kafka-faults-test" };
  admin = new Kafka({ ...settings, logLevel: logLevel.NOTHING }).admin();
  await admin.connect();
});

afterEach(() => setFault(passAll));

afterAll(async () => {
  await admin?.disconnect();
  await cluster?.stop();
  await Promise.all(proxies.map((proxy) => proxy.stop()));
  rmSync(dataDirectory, { recursive: true, force: true });
});

describe("kafkajs alone", () => {
  test("reports success for the records of a partition whose leader has moved", async () => {
    const topic = await newTopicOfTwoLeaders();
    await withBareProducer(async (producer) => {
      await producer.send({ topic, messages: bareMessages(["a0", "a1"]) });
      await moveLeader(topic, 1, [1, 3]);
      const answers = await producer.send({ topic, messages: bareMessages(["b0", "b1"]) });
      expect(answers.map(({ partition }) => partition)).toEqual([0]);
    });
    expect(await valuesOf(topic)).toEqual(["a0", "b0", "a1"]);
  });

  test("takes a batch for the repeat of one that was rejected, and never writes it", async () => {
    const topic = await newTopicOfTwoLeaders();
    await withBareProducer(async (producer) => {
      setFault(({ direction, name }) => (direction === "answer" && name === "produce" ? "reset" : "pass"));
      await expect(producer.send({ topic, messages: bareMessages(["a"]) })).rejects.toThrow();
      setFault(passAll);
      const answers = await producer.send({ topic, messages: bareMessages(["b"]) });
      expect(answers).toMatchObject([{ partition: 0, errorCode: 0, baseOffset: "0" }]);
    });
    expect(await valuesOf(topic)).toEqual(["a"]);
  });

  test("loses one and doubles the other of two sends at once, and reports both as written", async () => {
    const topic = await newTopicOfTwoLeaders();
    await withBareProducer(async (producer) => {
      setFault(once("answer", "produce", "reset").fault);
      const sends = ["a", "b"].map((value) => producer.send({ topic, messages: bareMessages([value]) }));
      expect(await Promise.all(sends)).toHaveLength(2);
    });
    const values = await valuesOf(topic);
    expect(values).toHaveLength(2);
    expect(firstOccurrences(values)).toHaveLength(1);
  });
});

describe("our publisher", () => {
  test("writes to a partition whose leader has moved", async () => {
    const topic = await newTopicOfTwoLeaders();
    const publisher = openPublisher(settings);
    const publish = (value: string) =>
      Promise.all([0, 1].map((partition) => publisher.publish(topic, partition, [record(value)], never)));
    await publish("a");
    await moveLeader(topic, 1, [1, 3]);
    await publish("b");
    await publisher.close();
    expect(await valuesOf(topic)).toEqual(["a", "b", "a", "b"]);
  });

  test("loses nothing when one broker answers late, another one's answer is lost and a leader moves", async () => {
    const topic = await newTopicOfTwoLeaders();
    const publisher = openPublisher(settings);
    const publish = (value: string) =>
      Promise.all([0, 1].map((partition) => publisher.publish(topic, partition, [record(value)], never)));
    const broker1 = holdProduceAnswer(1);
    const broker2 = holdProduceAnswer(2);
    const first = publish("a");
    await Promise.all([broker1.struck, broker2.struck]);
    await moveLeader(topic, 0, [3, 2]);
    broker2.release("reset");
    broker1.release("reset");
    await first;
    await publish("b");
    await publisher.close();
    expect(await valuesOf(topic)).toEqual(["a", "b", "a", "b"]);
  });

  test("writes a batch that follows one whose answers were lost, and repeats only that one", async () => {
    const topic = await newTopicOfTwoLeaders();
    const retried = Promise.withResolvers<string>();
    const publisher = openPublisher(settings, { onRetry: (_topic, reason) => retried.resolve(reason) });
    setFault(({ direction, name }) => (direction === "answer" && name === "produce" ? "reset" : "pass"));
    const first = publisher.publish(topic, 0, [record("a")], never);
    expect(await retried.promise).toBe("send_failed");
    expect(publisher.state()).toBe("degraded");
    setFault(passAll);
    await first;
    expect(publisher.state()).toBe("up");
    await publisher.publish(topic, 0, [record("b")], never);
    await publisher.close();
    const values = await valuesOf(topic);
    expect(firstOccurrences(values)).toEqual(["a", "b"]);
    expect(values.filter((value) => value === "b")).toHaveLength(1);
  });

  test("writes a batch that follows one that was given up after it had landed", async () => {
    const topic = await newTopicOfTwoLeaders();
    const publisher = openPublisher(settings);
    const giveUp = new AbortController();
    const lost = once("answer", "produce", "drop");
    setFault(lost.fault);
    const first = publisher.publish(topic, 0, [record("a")], giveUp.signal);
    await lost.struck;
    giveUp.abort();
    await expect(first).rejects.toMatchObject({ code: "publish_aborted" });
    await publisher.publish(topic, 0, [record("b")], never);
    await publisher.close();
    expect(await valuesOf(topic)).toEqual(["a", "b"]);
  });

  test("writes two batches once each, in order, when one answer is lost", async () => {
    const topic = await newTopicOfTwoLeaders();
    const publisher = openPublisher(settings);
    setFault(once("answer", "produce", "reset").fault);
    await publisher.publish(topic, 0, [record("a")], never);
    await publisher.publish(topic, 0, [record("b")], never);
    await publisher.close();
    expect(await valuesOf(topic)).toEqual(["a", "b"]);
  });

  test.each([
    ["has no entry for the partition", "answer_missing", withoutEntries],
    ["repeats an earlier offset", "answer_of_an_earlier_send", withBaseOffsetZero],
  ])("does not believe an answer that %s", async (_what, reason, alter) => {
    const topic = await newTopicOfTwoLeaders();
    const reasons: string[] = [];
    const publisher = openPublisher(settings, {
      onRetry: (_topic, retryReason) => reasons.push(retryReason),
    });
    await publisher.publish(topic, 0, [record("a")], never);
    let isAltered = false;
    setFault(({ direction, name, bytes }) => {
      if (isAltered || direction !== "answer" || name !== "produce") return "pass";
      isAltered = true;
      return alter(bytes, topic);
    });
    await publisher.publish(topic, 0, [record("b")], never);
    await publisher.close();
    expect(reasons).toEqual([reason]);
    expect(await valuesOf(topic)).toEqual(["a", "b", "b"]);
  });

  test("goes on by itself after its broker was killed and came back, without a loss", async () => {
    const topic = `test-${crypto.randomUUID()}`;
    await ensureTopics(settings, [{ name: topic, partitions: 1 }]);
    const leader = await leaderOf(topic, 0);
    const broker = cluster.brokers.find(({ id }) => id === leader);
    const retried = Promise.withResolvers<void>();
    const publisher = openPublisher(settings, { onRetry: () => retried.resolve() });
    const expected: string[] = [];
    const publishNext = async () => {
      const values = Array.from({ length: 20 }, (_, index) => String(expected.length + index));
      expected.push(...values);
      await publisher.publish(topic, 0, values.map(record), never);
    };
    for (let round = 0; round < 20; round += 1) await publishNext();
    const killed = broker?.kill();
    const publishing = (async () => {
      for (let round = 0; round < 20; round += 1) await publishNext();
    })();
    await Promise.all([killed, retried.promise]);
    await broker?.start();
    await publishing;
    await publisher.close();
    expect(firstOccurrences(await valuesOf(topic))).toEqual(expected);
  });
});

describe("our consumer", () => {
  test("is rebuilt when its commits stop, and reads again what was not committed", async () => {
    const topic = await newTopicOfTwoLeaders();
    await publishOne(topic, "a");
    const states: string[] = [];
    const errors: unknown[] = [];
    const seen: string[] = [];
    const degraded = Promise.withResolvers<void>();
    const readAgain = Promise.withResolvers<void>();
    setFault(({ direction, name }) => (direction === "answer" && name === "offset_commit" ? "drop" : "pass"));
    const groupId = `test-${crypto.randomUUID()}`;
    const consumer = await runConsumer(settings, {
      groupId,
      topics: [topic],
      fromBeginning: true,
      onState: (state) => {
        states.push(state);
        if (state === "degraded") degraded.resolve();
      },
      onError: (error) => errors.push(error),
      onBatch: async ({ records }) => {
        seen.push(...records.map(({ value }) => String(value)));
        if (seen.at(-1) === "b") readAgain.resolve();
        return records.length;
      },
    });
    await degraded.promise;
    setFault(passAll);
    await publishOne(topic, "b");
    await readAgain.promise;
    await consumer.close();
    expect(states).toEqual(["up", "degraded", "up"]);
    expect(errors).toMatchObject([{ code: "commit_timed_out" }]);
    expect(firstOccurrences(seen)).toEqual(["a", "b"]);
  });

  test("comes back when no broker could be reached for a while", async () => {
    const topic = await newTopicOfTwoLeaders();
    const states: string[] = [];
    const values: string[] = [];
    const reached = new Map(["up", "degraded", "value"].map((name) => [name, Promise.withResolvers<void>()]));
    const consumer = await runConsumer(settings, {
      groupId: `test-${crypto.randomUUID()}`,
      topics: [topic],
      fromBeginning: true,
      onState: (state) => {
        states.push(state);
        reached.get(state)?.resolve();
      },
      onBatch: async ({ records }) => {
        values.push(...records.map(({ value }) => String(value)));
        reached.get("value")?.resolve();
        return records.length;
      },
    });
    await reached.get("up")?.promise;
    for (const proxy of proxies) proxy.isRefusing = true;
    for (const proxy of proxies) proxy.endConnections("reset");
    await reached.get("degraded")?.promise;
    for (const proxy of proxies) proxy.isRefusing = false;
    await publishOne(topic, "a");
    await reached.get("value")?.promise;
    await consumer.close();
    expect(values).toEqual(["a"]);
    expect(states.at(-1)).toBe("up");
  });
});

function setFault(fault: Fault): void {
  for (const proxy of proxies) proxy.fault = fault;
}

function proxyOf(brokerId: number): FaultProxy {
  return proxies[brokerId - 1] as FaultProxy;
}

/** Holds back the next Produce answer of a broker until `release`. */
function holdProduceAnswer(brokerId: number) {
  const { promise, resolve: release } = Promise.withResolvers<Verdict>();
  const { fault, struck } = once("answer", "produce", promise);
  proxyOf(brokerId).fault = fault;
  return { struck, release };
}

/** Partition 0 is led by broker 1, partition 1 by broker 2, each with two replicas. */
async function newTopicOfTwoLeaders(): Promise<string> {
  const topic = `test-${crypto.randomUUID()}`;
  const replicaAssignment = [
    { partition: 0, replicas: [1, 2] },
    { partition: 1, replicas: [2, 3] },
  ];
  await admin.createTopics({ topics: [{ topic, replicaAssignment }], waitForLeaders: true });
  return topic;
}

async function leaderOf(topic: string, partition: number): Promise<number | undefined> {
  const metadata = await admin.fetchTopicMetadata({ topics: [topic] });
  return metadata.topics[0]?.partitions.find(({ partitionId }) => partitionId === partition)?.leader;
}

/** Moves a partition to other brokers, the first of which leads it then. */
async function moveLeader(topic: string, partition: number, replicas: number[]): Promise<void> {
  await admin.alterPartitionReassignments({
    topics: [{ topic, partitionAssignment: [{ partition, replicas }] }],
  });
  while ((await leaderOf(topic, partition)) !== replicas[0]) await Bun.sleep(50);
}

/** kafkajs with the settings that its documentation gives for no loss, and little patience. */
async function withBareProducer(work: (producer: Producer) => Promise<void>): Promise<void> {
  const kafka = new Kafka({
    ...settings,
    logLevel: logLevel.NOTHING,
    retry: { initialRetryTime: 100, retries: 2 },
  });
  const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1 });
  await producer.connect();
  try {
    await work(producer);
  } finally {
    await producer.disconnect();
  }
}

/** The first value goes to partition 0, the second to partition 1. */
function bareMessages(values: string[]) {
  return values.map((value, partition) => ({ value, partition }));
}

/** A Produce answer (version 7) of no topics: length, correlation id, number of topics, throttle time. */
function withoutEntries(answer: Buffer): Buffer {
  const altered = Buffer.alloc(16);
  altered.writeInt32BE(12);
  answer.copy(altered, 4, 4, 8);
  return altered;
}

/** A Produce answer (version 7) of one partition: before its offset stand 24 bytes and the topic's name. */
function withBaseOffsetZero(answer: Buffer, topic: string): Buffer {
  const altered = Buffer.from(answer);
  altered.writeBigInt64BE(0n, 24 + topic.length);
  return altered;
}

function record(value: string): KafkaRecord {
  return { key: "conversation:1", value, headers: {} };
}

async function publishOne(topic: string, value: string): Promise<void> {
  const publisher = openPublisher(settings);
  await publisher.publish(topic, 0, [record(value)], never);
  await publisher.close();
}

/** What is in the log, partition after partition. */
async function valuesOf(topic: string): Promise<string[]> {
  return (await readTopic(settings, topic)).map(({ value }) => String(value));
}

function firstOccurrences(values: string[]): string[] {
  return [...new Set(values)];
}
