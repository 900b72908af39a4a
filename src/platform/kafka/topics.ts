// What is asked of the cluster outside the walk of a message: topics at the start, its health, a whole topic.

import type { Admin } from "kafkajs";
import { OperatingError } from "../../model/errors.ts";
import { withDeadline } from "../pause.ts";
import { type KafkaSettings, openLink } from "./client.ts";
import { type ConsumedRecord, runConsumer } from "./consumer.ts";

/** A topic as it must be; the partition count never changes, for it decides where a key goes. */
export interface TopicSettings {
  name: string;
  partitions: number;
}

const adminDeadlineMs = 30_000;
const disconnectDeadlineMs = 1_000;
const replicationMax = 3;
const unknownTriesMax = 20;
const unknownPauseMs = 100;

/**
 * Creates the topics that are missing: on three brokers or more with three replicas, two of which must have a
 * record before it is acknowledged, and no election of a replica that lacks some (Kafka's topic settings
 * `min.insync.replicas` and `unclean.leader.election.enable`). Rejects with the OperatingError
 * `topic_partitions_mismatch` when a topic has another partition count, `kafka_unavailable` when Kafka is away.
 */
export function ensureTopics(settings: KafkaSettings, topics: TopicSettings[]): Promise<void> {
  return withAdmin(settings, adminDeadlineMs, async (admin) => {
    const existing = new Set(await admin.listTopics());
    const missing = topics.filter(({ name }) => !existing.has(name));
    if (missing.length > 0) await whenKnown(() => createTopics(admin, missing));
    const counts = await whenKnown(() => partitionCounts(admin, topics));
    for (const { name, partitions } of topics) {
      const found = counts.get(name) ?? 0;
      if (found !== partitions) {
        const message = `topic ${name} has ${found} partitions, not ${partitions}`;
        throw new OperatingError("topic_partitions_mismatch", { message });
      }
    }
  });
}

/**
 * How many partitions each of these topics has; one that is not there is left out. Creates nothing.
 * Rejects with the OperatingError `kafka_unavailable` after `timeoutMs`.
 */
export function countPartitions(
  settings: KafkaSettings,
  topics: TopicSettings[],
  timeoutMs: number,
): Promise<Map<string, number>> {
  return withAdmin(settings, timeoutMs, async (admin) => {
    const existing = new Set(await admin.listTopics());
    return await partitionCounts(
      admin,
      topics.filter(({ name }) => existing.has(name)),
    );
  });
}

/** Resolves when the cluster answers. Rejects with the OperatingError `kafka_unavailable` after `timeoutMs`. */
export function checkKafka(settings: KafkaSettings, timeoutMs: number): Promise<void> {
  return withAdmin(settings, timeoutMs, async (admin) => {
    await admin.describeCluster();
  });
}

/**
 * Reads a whole topic, from its beginning to its end at the time of the call; each partition is in order, and
 * the partitions stand one after the other. For tests and tools: it holds everything in memory.
 */
export async function readTopic(
  settings: KafkaSettings,
  topic: string,
): Promise<(ConsumedRecord & { partition: number })[]> {
  const ends = await withAdmin(settings, adminDeadlineMs, (admin) => admin.fetchTopicOffsets(topic));
  const open = new Map(
    ends.filter(({ low, high }) => low !== high).map((end) => [end.partition, BigInt(end.high)]),
  );
  const found: ConsumedRecord[][] = [];
  if (open.size === 0) return [];
  const done = Promise.withResolvers<void>();
  const groupId = `read-${topic}-${crypto.randomUUID()}`;
  const reader = await runConsumer(settings, {
    groupId,
    topics: [topic],
    fromBeginning: true,
    onBatch: async ({ partition, records }) => {
      const end = open.get(partition);
      if (end !== undefined) {
        const wanted = records.filter(({ offset }) => BigInt(offset) < end);
        found[partition] = (found[partition] ?? []).concat(wanted);
        if (BigInt(records.at(-1)?.offset ?? 0) + 1n >= end) open.delete(partition);
        if (open.size === 0) done.resolve();
      }
      return records.length;
    },
  });
  await done.promise;
  await reader.close();
  await withAdmin(settings, adminDeadlineMs, (admin) => admin.deleteGroups([groupId]));
  return found.flatMap((records, partition) => records.map((record) => ({ ...record, partition })));
}

// A broker may not know yet of a topic that the controller has just made.
async function whenKnown<T>(ask: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await ask();
    } catch (error) {
      const isUnknown = (error as { type?: unknown }).type === "UNKNOWN_TOPIC_OR_PARTITION";
      if (!isUnknown || tries >= unknownTriesMax) throw error;
      await Bun.sleep(unknownPauseMs);
    }
  }
}

async function partitionCounts(admin: Admin, topics: TopicSettings[]): Promise<Map<string, number>> {
  // Asked for no topic at all, Kafka would tell of every one.
  if (topics.length === 0) return new Map();
  const metadata = await admin.fetchTopicMetadata({ topics: topics.map(({ name }) => name) });
  return new Map(metadata.topics.map(({ name, partitions }) => [name, partitions.length]));
}

async function createTopics(admin: Admin, topics: TopicSettings[]): Promise<void> {
  const { brokers } = await admin.describeCluster();
  const replicationFactor = Math.min(replicationMax, brokers.length);
  const configEntries = [{ name: "unclean.leader.election.enable", value: "false" }];
  if (replicationFactor === replicationMax) configEntries.push({ name: "min.insync.replicas", value: "2" });
  await admin.createTopics({
    topics: topics.map(({ name, partitions }) => ({
      topic: name,
      numPartitions: partitions,
      replicationFactor,
      configEntries,
    })),
  });
}

/** Runs `work` with an admin client by a deadline; what it throws, but for our own errors, is `kafka_unavailable`. */
async function withAdmin<T>(
  settings: KafkaSettings,
  deadlineMs: number,
  work: (admin: Admin) => Promise<T>,
): Promise<T> {
  const link = openLink(settings);
  const admin = link.kafka.admin();
  const connected = async () => {
    await admin.connect();
    return work(admin);
  };
  try {
    const outcome = await withDeadline(connected(), deadlineMs, "kafka_unavailable");
    await withDeadline(admin.disconnect(), disconnectDeadlineMs, "disconnect_timed_out").catch(() => {});
    return outcome;
  } catch (cause) {
    if (cause instanceof OperatingError && cause.code !== "kafka_unavailable") throw cause;
    const message = `Kafka does not answer at ${settings.brokers.join(",")}; start it, or correct KAFKA_BROKERS`;
    throw new OperatingError("kafka_unavailable", { message, cause });
  } finally {
    link.cut();
  }
}
