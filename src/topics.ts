// The topics of a configuration, for whoever creates them: `chat4all migrate` and the workers at their start.
import { type Config, topicNames } from "./config.ts";
import type { TopicSettings } from "./platform/kafka.ts";

/** Every topic that a node writes. All have as many partitions as the outbox has shards. */
export function topicsOf(
  config: Pick<Config, "KAFKA_TOPIC_PREFIX" | "KAFKA_PARTITIONS" | "CHANNELS">,
): TopicSettings[] {
  const names = topicNames(config);
  const channels = config.CHANNELS.map(names.channel);
  return [names.outbox, names.events, names.deadLetters, ...channels].map((name) => ({
    name,
    partitions: config.KAFKA_PARTITIONS,
  }));
}
