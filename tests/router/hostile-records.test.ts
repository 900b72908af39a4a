// Events with hostile records among them, on a real outbox topic, through the router on its thread.
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import * as fc from "fast-check";
import { Kafka, logLevel } from "kafkajs";
import { topicNames } from "../../src/config.ts";
import { readTopic } from "../../src/platform/kafka.ts";
import { decodeEvent, encodeEvent } from "../../src/platform/kafka-event.ts";
import { openLog } from "../../src/platform/log.ts";
import { conversationKey } from "../../src/platform/murmur2.ts";
import { startWorkers } from "../../src/supervise.ts";
import { connect, makeDatabase, type TestDatabase } from "../support/database.ts";
import { anyRawRecord, type RawRecord } from "../support/kafka-records.ts";
import { until } from "../support/until.ts";
import { firstOccurrences, kafkaOf, makeConfig, numbersOf, shardOf, upTo } from "../support/walk.ts";

setDefaultTimeout(150_000);

const eventsPerConversation = 30;
const hostileCount = 200;
let database: TestDatabase;
beforeAll(async () => {
  database = await makeDatabase();
});
afterAll(() => database.drop());

test("routes every event in order, and parks whatever else is in its topic", async () => {
  await using postgres = connect(database.url, 2);
  const config = await makeConfig(database.url, { ROLES: "router", CHANNELS: "mail" });
  const topics = topicNames(config);
  const ids = upTo(8).map(() => crypto.randomUUID());
  const hostile = fc.sample(anyRawRecord, { seed: 20_262, numRuns: hostileCount });
  const events = upTo(eventsPerConversation).flatMap((number) => ids.map((id) => rawEvent(id, number)));

  // Hostile ones go to the partitions in turn, so that each stands between events.
  const messages = events.map((event) => ({ ...event, partition: shardOf(config, idOf(event)) }));
  for (const [index, record] of hostile.entries()) {
    const position = Math.floor((index * messages.length) / hostileCount);
    messages.splice(position, 0, { ...record, partition: index % config.KAFKA_PARTITIONS });
  }
  const producer = new Kafka({ ...kafkaOf(config), logLevel: logLevel.NOTHING }).producer();
  await producer.connect();
  for (const message of messages) await producer.send({ topic: topics.outbox, messages: [message] });
  await producer.disconnect();

  const written = await readTopic(kafkaOf(config), topics.outbox);
  expect(written).toHaveLength(messages.length);
  const refused = written.filter((read) => !isDecodable(read));
  expect(refused.length).toBeGreaterThan(hostileCount / 4);

  const workers = await startWorkers({
    config,
    instanceId: crypto.randomUUID(),
    log: openLog("test", "fatal"),
    onGiveUp: () => undefined,
  });
  await until(
    async () => {
      const [counts] = await postgres.query<{ parked: number; routed: number }>(
        `select (select count(*)::int from dead_letters) as parked,
                (select count(*)::int from routed where conversation_id = any ($1) and sequence_number = $2) as routed`,
        [ids, eventsPerConversation],
      );
      return counts?.parked === refused.length && counts.routed === ids.length;
    },
    "every event is routed and every other record parked",
    90_000,
  );
  expect(workers.restarts()).toEqual({ "message-router": 0 });
  await workers.stop(5_000);

  const routed = numbersOf(await readTopic(kafkaOf(config), topics.events));
  for (const id of ids) {
    expect(firstOccurrences(routed.get(id) ?? [])).toEqual(upTo(eventsPerConversation));
  }
  const accepted = new Set(written.filter(isDecodable).map(({ key }) => key));
  expect(new Set([...routed.keys()].map(conversationKey))).toEqual(accepted as Set<string>);
  expect((await readTopic(kafkaOf(config), topics.deadLetters)).length).toBeGreaterThanOrEqual(
    refused.length,
  );
});

function isDecodable(read: Parameters<typeof decodeEvent>[0]): boolean {
  try {
    decodeEvent(read);
    return true;
  } catch {
    return false;
  }
}

function rawEvent(conversationId: string, number: number): RawRecord {
  const row: Parameters<typeof encodeEvent>[0] = {
    event: "message.created",
    conversation_id: conversationId,
    sequence_number: number,
    message_id: crypto.randomUUID(),
    sender_id: "ada",
    payload: '{"type":"text","text":"hello"}',
    metadata: null,
    target_sequence_number: null,
    created_at: new Date(),
  };
  const routing = { traceparent: null, channels: ["mail"], dead_letter_id: null };
  const { key, value, headers } = encodeEvent(row, routing);
  const bytes = Object.entries(headers).map(([name, text]): [string, Buffer] => [name, Buffer.from(text)]);
  return { key: Buffer.from(key), value: Buffer.from(value), headers: Object.fromEntries(bytes) };
}

function idOf({ headers }: RawRecord): string {
  return String(headers["ce_subject"]);
}
