// A topic that refuses what is large, as a broker does whose limit somebody has lowered.
import { ConfigResourceTypes, Kafka, logLevel } from "kafkajs";
import type { Config } from "../../src/config.ts";
import { openPublisher, RecordRejected } from "../../src/platform/kafka.ts";
import { until } from "./until.ts";
import { kafkaOf } from "./walk.ts";

const never = new AbortController().signal;

/** Lowers or raises a topic's `max.message.bytes`; the broker takes it over a little later. */
export async function setTopicLimit(config: Config, topic: string, bytes: number): Promise<void> {
  const admin = new Kafka({ ...kafkaOf(config), logLevel: logLevel.NOTHING }).admin();
  await admin.connect();
  const configEntries = [{ name: "max.message.bytes", value: String(bytes) }];
  await admin.alterConfigs({
    validateOnly: false,
    resources: [{ type: ConfigResourceTypes.TOPIC, name: topic, configEntries }],
  });
  await admin.disconnect();
}

/** Lowers it, and waits until the broker refuses what is larger. Until then records with the key `probe` are written. */
export async function lowerTopicLimit(config: Config, topic: string, bytes: number): Promise<void> {
  await setTopicLimit(config, topic, bytes);
  const publisher = openPublisher(kafkaOf(config));
  const probe = { key: "probe", value: "x".repeat(bytes), headers: {} };
  await until(async () => {
    const refused = await publisher.publish(topic, 0, [probe], never).catch((error: unknown) => error);
    return refused instanceof RecordRejected;
  }, "the broker refuses what is large");
  await publisher.close();
}
