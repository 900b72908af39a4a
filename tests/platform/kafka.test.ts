// The Kafka file against one real broker without faults (TEST_KAFKA_BROKERS).

import { afterAll, describe, expect, test } from "bun:test";
import { Kafka, logLevel } from "kafkajs";
import { OperatingError } from "../../src/model/errors.ts";
import {
  checkKafka,
  ensureTopics,
  type KafkaBatch,
  type KafkaRecord,
  openPublisher,
  RecordRejected,
  readTopic,
  runConsumer,
} from "../../src/platform/kafka.ts";

const settings = { brokers: (process.env["TEST_KAFKA_BROKERS"] ?? "").split(","), clientId: "kafka-test" };
const never = new AbortController().signal;
const topics: string[] = [];
const sends: string[] = [];
const publisher = openPublisher(settings, { onSend: (topic) => sends.push(topic) });

afterAll(async () => {
  await publisher.close();
  const admin = new Kafka({ ...settings, logLevel: logLevel.NOTHING }).admin();
  await admin.connect();
  await admin.deleteTopics({ topics });
  await admin.disconnect();
});

describe("topics", () => {
  test("are made once, by whoever comes first", async () => {
    const wanted = [
      { name: unusedName(), partitions: 3 },
      { name: unusedName(), partitions: 1 },
    ];
    await Promise.all([ensureTopics(settings, wanted), ensureTopics(settings, wanted)]);
    await ensureTopics(settings, wanted);
  });

  test("with another partition count stop the start", async () => {
    const name = await newTopic(2);
    const outcome = ensureTopics(settings, [{ name, partitions: 3 }]);
    await expect(outcome).rejects.toMatchObject({
      code: "topic_partitions_mismatch",
      message: `topic ${name} has 2 partitions, not 3`,
    });
  });

  test("are not made by reading or writing", async () => {
    const stop = new AbortController();
    const retried = Promise.withResolvers<string>();
    const careful = openPublisher(settings, { onRetry: (_topic, reason) => retried.resolve(reason) });
    const name = unusedName();
    const publishing = careful.publish(name, 0, numbered(0, 1), stop.signal);
    expect(await retried.promise).toBe("send_failed");
    expect(careful.state()).toBe("degraded");
    stop.abort();
    await expect(publishing).rejects.toMatchObject({ code: "publish_aborted" });
    expect(careful.state()).toBe("up");
    await careful.close();
    await ensureTopics(settings, [{ name, partitions: 2 }]);
  });
});

describe("health", () => {
  test("is confirmed by a cluster that answers", async () => {
    await checkKafka(settings, 5_000);
  });

  test("is denied by the deadline when nothing answers", async () => {
    const silent = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
    const startedAtMs = performance.now();
    const outcome = checkKafka({ brokers: [`127.0.0.1:${silent.port}`], clientId: "kafka-test" }, 300);
    await expect(outcome).rejects.toMatchObject({ code: "kafka_unavailable" });
    expect(performance.now() - startedAtMs).toBeLessThan(1_000);
    silent.stop(true);
  });
});

describe("publishing", () => {
  test("keeps the order of the batches and the records as they were given", async () => {
    const topic = await newTopic(2);
    const headers = { ce_id: "ключ:1", traceparent: "" };
    for (let from = 0; from < 1_500; from += 150) {
      const records = numbered(from, 150).map((record) => ({ ...record, headers }));
      await Promise.all([
        publisher.publish(topic, 0, records, never),
        publisher.publish(topic, 1, records, never),
      ]);
    }
    const read = await readTopic(settings, topic);
    for (const partition of [0, 1]) {
      const written = read.filter((record) => record.partition === partition);
      expect(written.map(({ value }) => Number(value))).toEqual(
        Array.from({ length: 1_500 }, (_, index) => index),
      );
      expect(written[0]).toMatchObject({ key: "conversation:1", headers, offset: "0" });
    }
  });

  test("splits a batch that is too large for one send, in order", async () => {
    const topic = await newTopic(1);
    const text = "é".repeat(30_000);
    const records = Array.from({ length: 60 }, (_, index) => ({ ...one(`${index}:${text}`) }));
    await publisher.publish(topic, 0, records, never);
    const read = await readTopic(settings, topic);
    expect(read.map(({ value }) => value?.toString())).toEqual(records.map(({ value }) => value));
    expect(sends.filter((sentTo) => sentTo === topic).length).toBe(5);
  });

  test("tells which record the broker refuses for ever, after those before it", async () => {
    const topic = await newTopic(1);
    const records = [...numbered(0, 3), one("x".repeat(2_000_000)), ...numbered(4, 2)];
    const error = await publisher.publish(topic, 0, records, never).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(RecordRejected);
    expect(error).toMatchObject({
      code: "record_rejected",
      acknowledgedCount: 3,
      cause: { type: "MESSAGE_TOO_LARGE" },
    });
    await publisher.publish(topic, 0, records.slice(4), never);
    const read = await readTopic(settings, topic);
    expect(read.map(({ value }) => String(value))).toEqual(["0", "1", "2", "4", "5"]);
  });

  test("refuses a second batch for a partition that is busy", async () => {
    const topic = await newTopic(1);
    const first = publisher.publish(topic, 0, numbered(0, 1), never);
    await expect(publisher.publish(topic, 0, numbered(1, 1), never)).rejects.toThrow("two batches at once");
    await first;
  });

  test("ends what is under way when it is closed", async () => {
    const topic = await newTopic(1);
    const nowhere = openPublisher({ brokers: ["127.0.0.1:1"], clientId: "kafka-test" });
    const publishing = nowhere.publish(topic, 0, numbered(0, 1), never);
    await nowhere.close();
    await expect(publishing).rejects.toMatchObject({ code: "publish_aborted" });
    await expect(nowhere.publish(topic, 0, numbered(0, 1), never)).rejects.toMatchObject({
      code: "publish_aborted",
    });
  });
});

describe("consuming", () => {
  test("commits exactly the confirmed prefix", async () => {
    const topic = await newTopic(1);
    await publisher.publish(topic, 0, numbered(0, 10), never);
    const groupId = `test-${crypto.randomUUID()}`;
    const [first] = await consume(topic, groupId, 2, async () => 4);
    expect(first?.records.map(({ offset }) => offset)).toEqual([
      "0",
      "1",
      "2",
      "3",
      "4",
      "5",
      "6",
      "7",
      "8",
      "9",
    ]);
    const [second] = await consume(topic, groupId, 1, async () => 0);
    // The two batches of the first member confirmed four records each.
    expect(second?.records.map(({ value }) => String(value))).toEqual(["8", "9"]);
    expect(second?.highWatermark).toBe("10");
  });

  test("reads a batch again after a throw, and tells of it", async () => {
    const topic = await newTopic(1);
    await publisher.publish(topic, 0, numbered(0, 3), never);
    const errors: unknown[] = [];
    let calls = 0;
    const batches = await consume(
      topic,
      `test-${crypto.randomUUID()}`,
      2,
      async (batch) => {
        calls += 1;
        if (calls === 1) throw new OperatingError("poisoned");
        return batch.records.length;
      },
      (error) => errors.push(error),
    );
    expect(batches.map(({ records }) => records.length)).toEqual([3, 3]);
    expect(errors).toMatchObject([{ code: "poisoned" }]);
  });

  test("waits on close for the batch in hand, and commits it", async () => {
    const topic = await newTopic(1);
    await publisher.publish(topic, 0, numbered(0, 5), never);
    const groupId = `test-${crypto.randomUUID()}`;
    const started = Promise.withResolvers<KafkaBatch>();
    const finish = Promise.withResolvers<number>();
    const consumer = await runConsumer(settings, {
      groupId,
      topics: [topic],
      fromBeginning: true,
      onBatch: (batch) => {
        started.resolve(batch);
        return finish.promise;
      },
    });
    const batch = await started.promise;
    expect(batch.isStale()).toBe(false);
    const closed = consumer.close();
    expect(batch.isStale()).toBe(true);
    expect(batch.signal.aborted).toBe(false);
    finish.resolve(5);
    await closed;
    await publisher.publish(topic, 0, numbered(5, 1), never);
    const [next] = await consume(topic, groupId, 1, async () => 1);
    expect(next?.records.map(({ value }) => String(value))).toEqual(["5"]);
  });

  test("shares partitions within a group, and hands them over", async () => {
    const topic = await newTopic(4);
    const groupId = `test-${crypto.randomUUID()}`;
    const seen = new Map<string, Set<number>>([
      ["first", new Set()],
      ["second", new Set()],
    ]);
    const member = (name: string, onState: () => void) =>
      runConsumer(settings, {
        groupId,
        topics: [topic],
        fromBeginning: true,
        onState,
        onBatch: async ({ partition, records }) => {
          seen.get(name)?.add(partition);
          if ((seen.get("first")?.size ?? 0) + (seen.get("second")?.size ?? 0) === 4) all.resolve();
          return records.length;
        },
      });
    let all = Promise.withResolvers<void>();
    const firstUp = Promise.withResolvers<void>();
    const bothUp = Promise.withResolvers<void>();
    const first = await member("first", firstUp.resolve);
    await firstUp.promise;
    const second = await member("second", bothUp.resolve);
    await bothUp.promise;
    await Promise.all(
      [0, 1, 2, 3].map((partition) => publisher.publish(topic, partition, numbered(0, 1), never)),
    );
    await all.promise;
    expect([seen.get("first")?.size, seen.get("second")?.size]).toEqual([2, 2]);

    for (const partitions of seen.values()) partitions.clear();
    all = Promise.withResolvers<void>();
    await first.close();
    await Promise.all(
      [0, 1, 2, 3].map((partition) => publisher.publish(topic, partition, numbered(1, 1), never)),
    );
    await all.promise;
    expect([seen.get("first")?.size, seen.get("second")?.size]).toEqual([0, 4]);
    await second.close();
  });
});

/** Of a topic that is deleted in the end. */
function unusedName(): string {
  const name = `test-${crypto.randomUUID()}`;
  topics.push(name);
  return name;
}

async function newTopic(partitions: number): Promise<string> {
  const name = unusedName();
  await ensureTopics(settings, [{ name, partitions }]);
  return name;
}

function one(value: string): KafkaRecord {
  return { key: "conversation:1", value, headers: {} };
}

function numbered(from: number, count: number): KafkaRecord[] {
  return Array.from({ length: count }, (_, index) => one(String(from + index)));
}

/** Runs a member of the group until it was shown `count` batches, and returns those. */
async function consume(
  topic: string,
  groupId: string,
  count: number,
  onBatch: (batch: KafkaBatch) => Promise<number>,
  onError?: (error: unknown) => void,
): Promise<KafkaBatch[]> {
  const batches: KafkaBatch[] = [];
  const enough = Promise.withResolvers<void>();
  const consumer = await runConsumer(settings, {
    groupId,
    topics: [topic],
    fromBeginning: true,
    ...(onError && { onError }),
    onBatch: async (batch) => {
      if (batches.length === count) return 0;
      batches.push(batch);
      if (batches.length === count) enough.resolve();
      return onBatch(batch);
    },
  });
  await enough.promise;
  await consumer.close();
  return batches;
}
