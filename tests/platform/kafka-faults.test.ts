// The Kafka file against three real brokers behind proxies. First what kafkajs alone does there: it reports success
// for records that are not in the log. Those tests fail when an upgrade cures it; then its guard may be lifted.

import {
  afterAll,
  afterEach,
  beforeAll,
  describe,
  expect,
  mock,
  setDefaultTimeout,
  spyOn,
  test,
} from "bun:test";
import { Kafka, logLevel, type Producer, type RecordMetadata } from "kafkajs";
import { ensureTopics, type KafkaRecord, openPublisher, runConsumer } from "../../src/platform/kafka.ts";
import { once, passAll } from "../support/fault-proxy.ts";
import { type ProxiedCluster, startProxiedCluster } from "../support/kafka-cluster.ts";
import { until } from "../support/until.ts";
import type { Command, Report } from "./kafka-consumer-worker.ts";

setDefaultTimeout(60_000);

const never = new AbortController().signal;
let cluster: ProxiedCluster;

beforeAll(async () => {
  cluster = await startProxiedCluster({ clientId: "kafka-faults-test" });
});

afterEach(() => {
  mock.restore();
  cluster.setFault(passAll);
});

afterAll(() => cluster?.stop());

describe("kafkajs alone", () => {
  test("reports success for the records of a partition whose leader has moved", async () => {
    const topic = await cluster.newTopicOfTwoLeaders();
    await withBareProducer(async (producer) => {
      await producer.send({ topic, messages: bareMessages(["a0", "a1"]) });
      await cluster.moveLeader(topic, 1, [1, 3]);
      const answers = await producer.send({ topic, messages: bareMessages(["b0", "b1"]) });
      expect(answers.map(({ partition }) => partition)).toEqual([0]);
    });
    expect(await cluster.valuesOf(topic)).toEqual(["a0", "b0", "a1"]);
  });

  test("takes a batch for the repeat of one that was rejected, and never writes it", async () => {
    const topic = await cluster.newTopicOfTwoLeaders();
    await withBareProducer(async (producer) => {
      cluster.setFault(({ direction, name }) =>
        direction === "answer" && name === "produce" ? "reset" : "pass",
      );
      await expect(producer.send({ topic, messages: bareMessages(["a"]) })).rejects.toThrow();
      cluster.setFault(passAll);
      const answers = await producer.send({ topic, messages: bareMessages(["b"]) });
      expect(answers).toMatchObject([{ partition: 0, errorCode: 0, baseOffset: "0" }]);
    });
    expect(await cluster.valuesOf(topic)).toEqual(["a"]);
  });

  test("loses one and doubles the other of two sends at once, and reports both as written", async () => {
    const topic = await cluster.newTopicOfTwoLeaders();
    await withBareProducer(async (producer) => {
      cluster.setFault(once("answer", "produce", "reset").fault);
      const sends = ["a", "b"].map((value) => producer.send({ topic, messages: bareMessages([value]) }));
      expect(await Promise.all(sends)).toHaveLength(2);
    });
    const values = await cluster.valuesOf(topic);
    expect(values).toHaveLength(2);
    expect(firstOccurrences(values)).toHaveLength(1);
  });

  // The last two hang on which broker kafkajs picks, at random, to ask for metadata after the loss. It is broker 3
  // here: broker 2 has lost its connection, and broker 1 would answer only after what is held back.
  test("loses a later send after one broker's late answer, another's lost one and a leader's move", async () => {
    const topic = await cluster.newTopicOfTwoLeaders();
    await withBareProducer(async (producer) => {
      const late = cluster.holdProduceAnswer(1);
      const lost = cluster.holdProduceAnswer(2);
      const sending = producer.send({ topic, messages: bareMessages(["a0", "a1"]) });
      await Promise.all([late.struck, lost.struck]);
      await cluster.moveLeader(topic, 0, [3, 2]);
      const sentAgain = untilProduced(producer, 3);
      lost.release("reset");
      await sentAgain;
      late.release("reset");
      expect(entries(await sending)).toEqual({ 0: "1", 1: "0" });
      const answers = await producer.send({ topic, messages: bareMessages(["b0", "b1"]) });
      // All are there; the first has not risen.
      expect(entries(answers)).toEqual({ 0: "1", 1: "1" });
    });
    expect(await cluster.valuesOf(topic)).toEqual(["a0", "a0", "a1", "b1"]);
  });

  test("writes a send twice after one broker's late answer and another's lost one", async () => {
    const topic = await cluster.newTopicOfTwoLeaders();
    await withBareProducer(async (producer) => {
      const late = cluster.holdProduceAnswer(1);
      const lost = cluster.holdProduceAnswer(2);
      const sending = producer.send({ topic, messages: bareMessages(["a0", "a1"]) });
      await Promise.all([late.struck, lost.struck]);
      const sentAgain = untilProduced(producer, 2);
      lost.release("reset");
      await sentAgain;
      late.release("pass");
      expect(entries(await sending)).toEqual({ 0: "1", 1: "0" });
    });
    expect(await cluster.valuesOf(topic)).toEqual(["a0", "a0", "a1"]);
  });
});

describe("our publisher", () => {
  test("writes to a partition whose leader has moved", async () => {
    const topic = await cluster.newTopicOfTwoLeaders();
    const publisher = openPublisher(cluster.settings);
    const publish = (value: string) =>
      Promise.all([0, 1].map((partition) => publisher.publish(topic, partition, [record(value)], never)));
    await publish("a");
    await cluster.moveLeader(topic, 1, [1, 3]);
    await publish("b");
    await publisher.close();
    expect(await cluster.valuesOf(topic)).toEqual(["a", "b", "a", "b"]);
  });

  test("loses nothing when one broker answers late, another one's answer is lost and a leader moves", async () => {
    const topic = await cluster.newTopicOfTwoLeaders();
    const publisher = openPublisher(cluster.settings);
    const publish = (value: string) =>
      Promise.all([0, 1].map((partition) => publisher.publish(topic, partition, [record(value)], never)));
    const broker1 = cluster.holdProduceAnswer(1);
    const broker2 = cluster.holdProduceAnswer(2);
    const first = publish("a");
    await Promise.all([broker1.struck, broker2.struck]);
    await cluster.moveLeader(topic, 0, [3, 2]);
    broker2.release("reset");
    broker1.release("reset");
    await first;
    await publish("b");
    await publisher.close();
    expect(await cluster.valuesOf(topic)).toEqual(["a", "b", "a", "b"]);
  });

  test("writes once what one broker answers late while another one's answer is lost", async () => {
    const topic = await cluster.newTopicOfTwoLeaders();
    const publisher = openPublisher(cluster.settings);
    const publish = (value: string) =>
      Promise.all([0, 1].map((partition) => publisher.publish(topic, partition, [record(value)], never)));
    const late = cluster.holdProduceAnswer(1);
    const lost = cluster.holdProduceAnswer(2);
    const first = publish("a");
    await Promise.all([late.struck, lost.struck]);
    const sentAgain = once("answer", "produce", "pass");
    cluster.proxyOf(2).fault = sentAgain.fault;
    lost.release("reset");
    await sentAgain.struck;
    late.release("pass");
    await first;
    await publish("b");
    await publisher.close();
    expect(await cluster.valuesOf(topic)).toEqual(["a", "b", "a", "b"]);
  });

  test("writes a batch that follows one whose answers were lost, and repeats only that one", async () => {
    const topic = await cluster.newTopicOfTwoLeaders();
    const retried = Promise.withResolvers<string>();
    const publisher = openPublisher(cluster.settings, {
      onRetry: (_topic, reason) => retried.resolve(reason),
    });
    cluster.setFault(({ direction, name }) =>
      direction === "answer" && name === "produce" ? "reset" : "pass",
    );
    const first = publisher.publish(topic, 0, [record("a")], never);
    expect(await retried.promise).toBe("send_failed");
    expect(publisher.state()).toBe("degraded");
    cluster.setFault(passAll);
    await first;
    expect(publisher.state()).toBe("up");
    await publisher.publish(topic, 0, [record("b")], never);
    await publisher.close();
    const values = await cluster.valuesOf(topic);
    expect(firstOccurrences(values)).toEqual(["a", "b"]);
    expect(values.filter((value) => value === "b")).toHaveLength(1);
  });

  test("writes a batch that follows one that was given up after it had landed", async () => {
    const topic = await cluster.newTopicOfTwoLeaders();
    const publisher = openPublisher(cluster.settings);
    const giveUp = new AbortController();
    const lost = once("answer", "produce", "drop");
    cluster.setFault(lost.fault);
    const first = publisher.publish(topic, 0, [record("a")], giveUp.signal);
    await lost.struck;
    giveUp.abort();
    await expect(first).rejects.toMatchObject({ code: "publish_aborted" });
    await publisher.publish(topic, 0, [record("b")], never);
    await publisher.close();
    expect(await cluster.valuesOf(topic)).toEqual(["a", "b"]);
  });

  test("writes two batches once each, in order, when one answer is lost", async () => {
    const topic = await cluster.newTopicOfTwoLeaders();
    const publisher = openPublisher(cluster.settings);
    cluster.setFault(once("answer", "produce", "reset").fault);
    await publisher.publish(topic, 0, [record("a")], never);
    await publisher.publish(topic, 0, [record("b")], never);
    await publisher.close();
    expect(await cluster.valuesOf(topic)).toEqual(["a", "b"]);
  });

  test.each([
    ["has no entry for the partition", "answer_missing", withoutEntries],
    ["repeats an earlier offset", "answer_of_an_earlier_send", withBaseOffsetZero],
  ])("does not believe an answer that %s", async (_what, reason, alter) => {
    const topic = await cluster.newTopicOfTwoLeaders();
    const reasons: string[] = [];
    const publisher = openPublisher(cluster.settings, {
      onRetry: (_topic, retryReason) => reasons.push(retryReason),
    });
    await publisher.publish(topic, 0, [record("a")], never);
    let isAltered = false;
    cluster.setFault(({ direction, name, bytes }) => {
      if (isAltered || direction !== "answer" || name !== "produce") return "pass";
      isAltered = true;
      return alter(bytes, topic);
    });
    await publisher.publish(topic, 0, [record("b")], never);
    await publisher.close();
    expect(reasons).toEqual([reason]);
    expect(await cluster.valuesOf(topic)).toEqual(["a", "b", "b"]);
  });

  test("goes on by itself after its broker was killed and came back, without a loss", async () => {
    const topic = `test-${crypto.randomUUID()}`;
    await ensureTopics(cluster.settings, [{ name: topic, partitions: 1 }]);
    const leader = await cluster.leaderOf(topic, 0);
    const broker = cluster.brokers.find(({ id }) => id === leader);
    const retried = Promise.withResolvers<void>();
    const publisher = openPublisher(cluster.settings, { onRetry: () => retried.resolve() });
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
    expect(firstOccurrences(await cluster.valuesOf(topic))).toEqual(expected);
  });
});

describe("our consumer", () => {
  test("is rebuilt when its commits stop, and reads again what was not committed", async () => {
    const topic = await cluster.newTopicOfTwoLeaders();
    await publishOne(topic, "a");
    const states: string[] = [];
    const errors: unknown[] = [];
    const seen: string[] = [];
    const degraded = Promise.withResolvers<void>();
    const readAgain = Promise.withResolvers<void>();
    cluster.setFault(({ direction, name }) =>
      direction === "answer" && name === "offset_commit" ? "drop" : "pass",
    );
    const groupId = `test-${crypto.randomUUID()}`;
    const consumer = await runConsumer(cluster.settings, {
      groupId,
      topics: [topic],
      fromBeginning: true,
      // Brokers that have only just started may refuse the first who joins.
      onState: (state) => {
        if (state === "degraded" && states.length === 0) return;
        states.push(state);
        if (state === "degraded") degraded.resolve();
      },
      onError: (error) => states.length > 0 && errors.push(error),
      onBatch: async ({ records }) => {
        seen.push(...records.map(({ value }) => String(value)));
        if (seen.at(-1) === "b") readAgain.resolve();
        return records.length;
      },
    });
    await degraded.promise;
    cluster.setFault(passAll);
    await publishOne(topic, "b");
    await readAgain.promise;
    await consumer.close();
    expect(states).toEqual(["up", "degraded", "up"]);
    expect(errors).toMatchObject([{ code: "commit_timed_out" }]);
    expect(firstOccurrences(seen)).toEqual(["a", "b"]);
  });

  test("comes back when no broker could be reached for a while", async () => {
    const topic = await cluster.newTopicOfTwoLeaders();
    const states: string[] = [];
    const values: string[] = [];
    const reached = new Map(["up", "degraded", "value"].map((name) => [name, Promise.withResolvers<void>()]));
    const consumer = await runConsumer(cluster.settings, {
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
    for (const proxy of cluster.proxies) proxy.isRefusing = true;
    for (const proxy of cluster.proxies) proxy.endConnections("reset");
    await reached.get("degraded")?.promise;
    for (const proxy of cluster.proxies) proxy.isRefusing = false;
    await publishOne(topic, "a");
    await reached.get("value")?.promise;
    await consumer.close();
    expect(values).toEqual(["a"]);
    expect(states.at(-1)).toBe("up");
  });

  // kafkajs then starts to fetch from another set of brokers after it was stopped, which is never stopped again.
  test("closes although it loses a broker while its last batches end", async () => {
    const topic = `test-${crypto.randomUUID()}`;
    const replicaAssignment = [1, 2, 3].map((id) => ({ partition: id - 1, replicas: [id] }));
    await cluster.admin.createTopics({ topics: [{ topic, replicaAssignment }], waitForLeaders: true });
    const worker = new Worker(new URL("kafka-consumer-worker.ts", import.meta.url).href);
    const reports = new Set<Report>();
    worker.addEventListener("message", ({ data }: MessageEvent<Report>) => reports.add(data));
    const tell = (command: Command) => worker.postMessage(command);
    const untilIt = (report: Report) => until(() => reports.has(report), `the consumer ${report}`, 15_000);
    try {
      await publishOne(topic, "held");
      tell({ open: cluster.settings, topic });
      await untilIt("holds a batch");
      tell("close");
      await untilIt("is closing");

      const late = Promise.withResolvers<void>();
      cluster.proxyOf(2).fault = ({ direction, name, bytes }) => {
        if (direction === "answer" && name === "fetch" && bytes.includes("late")) late.resolve();
        return "pass";
      };
      await publishOne(topic, "late", 1);
      await late.promise;
      const lost = once("request", "fetch", "close");
      cluster.proxyOf(3).fault = lost.fault;
      await lost.struck;
      const heartbeat = once("request", "heartbeat", "pass");
      cluster.setFault(heartbeat.fault);
      await heartbeat.struck;

      tell("let go");
      await untilIt("is closed");
    } finally {
      worker.terminate();
    }
  });
});

/**
 * kafkajs with the settings that its documentation gives for no loss, and little patience. It is connected to
 * broker 3 first, and what it does at random it does in one and the same way.
 */
async function withBareProducer(work: (producer: Producer) => Promise<void>): Promise<void> {
  const { brokers, clientId } = cluster.settings;
  const kafka = new Kafka({
    brokers: brokers.slice(2),
    clientId,
    logLevel: logLevel.NOTHING,
    retry: { initialRetryTime: 100, retries: 2 },
  });
  const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1 });
  const random = spyOn(Math, "random").mockReturnValue(0);
  try {
    await producer.connect();
    await work(producer);
  } finally {
    random.mockRestore();
    await producer.disconnect();
  }
}

/** Resolves when the producer has a broker's next Produce answer. */
function untilProduced(producer: Producer, brokerId: number): Promise<void> {
  return new Promise((resolve) => {
    producer.on(producer.events.REQUEST, ({ payload: { apiName, broker } }) => {
      if (apiName === "Produce" && broker === cluster.settings.brokers[brokerId - 1]) resolve();
    });
  });
}

/** The base offset of each partition that an answer tells of. */
function entries(answers: RecordMetadata[]): Record<number, string | undefined> {
  return Object.fromEntries(answers.map(({ partition, baseOffset }) => [partition, baseOffset]));
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

async function publishOne(topic: string, value: string, partition = 0): Promise<void> {
  const publisher = openPublisher(cluster.settings);
  await publisher.publish(topic, partition, [record(value)], never);
  await publisher.close();
}

function firstOccurrences(values: string[]): string[] {
  return [...new Set(values)];
}
