// One of three brokers dies: the one that coordinates the consumer group and leads a third of the partitions.
import { expect, setDefaultTimeout, test } from "bun:test";
import { Kafka, logLevel } from "kafkajs";
import { type KafkaBroker, startKafkaCluster } from "../../deploy/local/kafka.ts";
import { ensureTopics, openPublisher, readTopic, runConsumer } from "../../src/platform/kafka.ts";
import { until } from "../support/until.ts";
import { firstOccurrences, upTo } from "../support/walk.ts";
import { Folder } from "./own-node.ts";

setDefaultTimeout(120_000);

const partitions = 6;
const topic = "letters";
const groupId = "readers";
/** Fenced after 5 s of silence at the broker's settings here; three more to go on, and a busy machine. */
const publishedMsMax = 13_000;
/** Fifteen seconds after the fencing, and a busy machine. */
const committedMsMax = 22_000;

test("publishing and committing go on soon after a broker is fenced, without a loss", async () => {
  using folder = new Folder();
  const cluster = await startKafkaCluster({
    dataDirectory: folder.path,
    report: () => undefined,
    anyPort: true,
    brokers: 3,
  });
  const settings = { brokers: cluster.bootstrap.split(","), clientId: "faults-test" };
  const publisher = openPublisher(settings);
  const stopping = new AbortController();
  const acknowledged = upTo(partitions).map(() => 0);
  const read = upTo(partitions).map(() => 0);

  async function keepPublishing(partition: number) {
    while (!stopping.signal.aborted) {
      const next = (acknowledged[partition] ?? 0) + 1;
      const record = { key: "key", value: String(next), headers: {} };
      await publisher.publish(topic, partition, [record], new AbortController().signal);
      acknowledged[partition] = next;
      await Bun.sleep(20);
    }
  }

  try {
    await ensureTopics(settings, [{ name: topic, partitions }]);
    const publishing = acknowledged.map((_, partition) => keepPublishing(partition));
    const consumer = await runConsumer(settings, {
      groupId,
      topics: [topic],
      fromBeginning: true,
      async onBatch({ partition, records }) {
        // A batch comes only after the one before it is committed.
        read[partition] = (read[partition] ?? 0) + 1;
        return records.length;
      },
    });
    await until(() => read.every((count) => count > 5), "every partition is read", 40_000);

    const coordinator = await coordinatorOf(settings.brokers);
    await (cluster.brokers[coordinator - 1] as KafkaBroker).kill();
    const killedAtMs = performance.now();
    const before = [...acknowledged];
    await untilMore(acknowledged, before, 3, "all partitions are published to");
    expect(performance.now() - killedAtMs).toBeLessThan(publishedMsMax);
    await untilMore(read, [...read], 3, "all partitions are committed");
    expect(performance.now() - killedAtMs).toBeLessThan(committedMsMax);

    stopping.abort();
    await Promise.all(publishing);
    await consumer.close();
    const records = await readTopic(settings, topic);
    for (const [partition, last] of acknowledged.entries()) {
      const found = records.filter((record) => record.partition === partition);
      expect(firstOccurrences(found.map(({ value }) => Number(value)))).toEqual(upTo(last));
    }
  } finally {
    stopping.abort();
    await publisher.close();
    await cluster.stop();
  }
});

function untilMore(counts: number[], before: number[], more: number, what: string): Promise<void> {
  const haveAll = () => counts.every((count, at) => count >= (before[at] ?? 0) + more);
  return until(haveAll, what, 60_000);
}

/** The id of the broker that coordinates the group: who leads its partition of the offsets topic. */
async function coordinatorOf(brokers: string[]): Promise<number> {
  const admin = new Kafka({ brokers, logLevel: logLevel.NOTHING }).admin();
  await admin.connect();
  const { topics } = await admin.fetchTopicMetadata({ topics: ["__consumer_offsets"] });
  await admin.disconnect();
  const all = topics[0]?.partitions ?? [];
  const partition = (javaHash(groupId) & 0x7fffffff) % all.length;
  return all.find(({ partitionId }) => partitionId === partition)?.leader ?? 0;
}

/** String.hashCode of Java. */
function javaHash(text: string): number {
  let hash = 0;
  for (const character of text) hash = (Math.imul(hash, 31) + character.charCodeAt(0)) | 0;
  return hash;
}
