// Everything that the rest of the project may use of Kafka. Only the folder beside this file imports kafkajs.

export type { KafkaSettings } from "./kafka/client.ts";
export { type ConsumedRecord, type KafkaBatch, runConsumer } from "./kafka/consumer.ts";
export type { KafkaRecord } from "./kafka/producer.ts";
export { type KafkaPublisher, openPublisher, RecordRejected } from "./kafka/publisher.ts";
export { checkKafka, countPartitions, ensureTopics, readTopic, type TopicSettings } from "./kafka/topics.ts";
