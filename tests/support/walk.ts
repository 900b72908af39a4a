// What tests of the workers share: a configuration with a database and topics of its own, messages stored as ingest
// stores them, and what is in the topics in the end.
import createConversationSql from "../../sql/conversations/create.sql" with { type: "text" };
import ingestBatchSql from "../../sql/ingest/ingest-batch.sql" with { type: "text" };
import { type Config, readConfig } from "../../src/config.ts";
import { ensureTopics, type KafkaSettings } from "../../src/platform/kafka.ts";
import { conversationKey, partitionOf } from "../../src/platform/murmur2.ts";
import type { Postgres } from "../../src/platform/postgres.ts";
import { topicsOf } from "../../src/topics.ts";
import { until } from "./until.ts";

/** A configuration for a database, with topics that nobody else uses, made already. */
export async function makeConfig(databaseUrl: string, changes: Record<string, string> = {}): Promise<Config> {
  const config = readConfig({
    DATABASE_URL: databaseUrl,
    KAFKA_BROKERS: process.env["TEST_KAFKA_BROKERS"],
    REDIS_URL: process.env["TEST_REDIS_URL"],
    KAFKA_TOPIC_PREFIX: `test-${crypto.randomUUID()}`,
    KAFKA_PARTITIONS: "4",
    JWT_SECRET: "a secret of thirty-two characters",
    LOG_LEVEL: "fatal",
    ...changes,
  });
  await ensureTopics(kafkaOf(config), topicsOf(config));
  return config;
}

export function kafkaOf(config: Config): KafkaSettings {
  return { brokers: config.KAFKA_BROKERS, clientId: "chat4all-test" };
}

const sender = "ada";

/** Makes a conversation of which `sender` is a member; answers its id. */
export async function makeConversation(
  postgres: Postgres,
  config: Config,
  channels: string[] = [],
): Promise<string> {
  const id = crypto.randomUUID();
  await postgres.query(createConversationSql, [
    id,
    "group",
    shardOf(config, id),
    sender,
    ["bob"],
    channels,
    null,
    null,
  ]);
  return id;
}

export function shardOf(config: Config, conversationId: string): number {
  return partitionOf(conversationKey(conversationId), config.KAFKA_PARTITIONS);
}

/** Stores one message for each conversation id, in one commit. */
export async function post(
  postgres: Postgres,
  conversationIds: string[],
  payload: unknown = { type: "text", text: "hello" },
): Promise<void> {
  const of = <Value>(value: (id: string) => Value) => conversationIds.map(value);
  await postgres.query(ingestBatchSql, [
    conversationIds,
    of(() => sender),
    of(() => crypto.randomUUID()),
    of(() => JSON.stringify(payload)),
    of(() => null),
    of(() => `00-${"ab".repeat(16)}-${"cd".repeat(8)}-01`),
    of(() => ""),
    of(() => ""),
  ]);
}

/** Sequence numbers by conversation, as they stand in some records. */
export function numbersOf(records: { key: string | null; headers: Record<string, string> }[]) {
  const numbers = new Map<string, number[]>();
  for (const { key, headers } of records) {
    const id = String(key).replace("conversation:", "");
    const list = numbers.get(id) ?? [];
    list.push(Number(headers["sequence_number"]));
    numbers.set(id, list);
  }
  return numbers;
}

/** Only the first occurrence of each number. */
export function firstOccurrences(numbers: number[]): number[] {
  return [...new Set(numbers)];
}

export function upTo(last: number): number[] {
  return Array.from({ length: last }, (_, index) => index + 1);
}

/** Resolves when no message waits in the outbox and the router has raised every watermark; by the deadline of `until`. */
export function untilRouted(postgres: Postgres, deadlineMs?: number): Promise<void> {
  return until(
    async () => {
      const left = await postgres.query(`
      select from conversations c left join routed r on r.conversation_id = c.id
      where c.last_sequence_number > coalesce(r.sequence_number, 0)
      union all select from outbox limit 1`);
      return left.length === 0;
    },
    "everything is routed",
    deadlineMs,
  );
}
