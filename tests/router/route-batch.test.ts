// The order of effects within a batch, with a publisher that the test holds in its hand and real Postgres.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { type Config, readConfig, topicNames } from "../../src/config.ts";
import { OperatingError } from "../../src/model/errors.ts";
import { openHolds } from "../../src/platform/holds.ts";
import {
  type ConsumedRecord,
  type KafkaBatch,
  type KafkaPublisher,
  type KafkaRecord,
  RecordRejected,
} from "../../src/platform/kafka.ts";
import { openLog } from "../../src/platform/log.ts";
import type { Postgres } from "../../src/platform/postgres.ts";
import { openWatchdogs } from "../../src/platform/watchdog.ts";
import { type PartitionMemory, routeBatch } from "../../src/router/route-batch.ts";
import { openWatermarks, type Watermarks } from "../../src/router/watermarks.ts";
import { connect, makeDatabase, type TestDatabase } from "../support/database.ts";

let database: TestDatabase;
let postgres: Postgres;
let config: Config;
const unknownChannels: string[] = [];
beforeAll(async () => {
  database = await makeDatabase();
  postgres = connect(database.url, 2);
  config = readConfig({
    DATABASE_URL: database.url,
    KAFKA_BROKERS: "127.0.0.1:1",
    REDIS_URL: "redis://127.0.0.1:1",
    JWT_SECRET: "a secret of thirty-two characters",
    CHANNELS: "mail,sms",
  });
});
afterAll(async () => {
  await postgres.close();
  await database.drop();
});

/** A publisher that notes what it is given; `answer` decides when, and how, each call ends. */
function notePublished(answer: (topic: string, records: KafkaRecord[]) => Promise<void> = async () => {}) {
  const published: Record<string, string[]> = {};
  const publisher: KafkaPublisher = {
    async publish(topic, _partition, records) {
      const name = topic.replace(`${config.KAFKA_TOPIC_PREFIX}.`, "");
      await answer(name, records);
      published[name] = [
        ...(published[name] ?? []),
        ...records.map(({ headers }) => String(headers["ce_id"])),
      ];
    },
    state: () => "up",
    close: async () => {},
  };
  return { published, publisher };
}

function route(
  publisher: KafkaPublisher,
  batch: KafkaBatch,
  watermarks: Watermarks = openWatermarks(postgres),
  memory: PartitionMemory = newMemory(),
) {
  const tools = {
    postgres,
    publisher,
    watermarks,
    topics: topicNames(config),
    channels: config.CHANNELS,
    onUnknownChannel: (channel: string) => unknownChannels.push(channel),
    log: openLog("test", "fatal"),
  };
  return routeBatch(tools, batch, memory, openWatchdogs().watch(1_000));
}

/** A publisher of which the events topic refuses one record, until told to stop. */
function refuse(ceId: string) {
  let isRefusing = true;
  const noted = notePublished();
  const publisher: KafkaPublisher = {
    ...noted.publisher,
    async publish(topic, partition, records, signal) {
      const position = records.findIndex(({ headers }) => headers["ce_id"] === ceId);
      if (!isRefusing || position < 0 || !topic.endsWith(".events")) {
        return noted.publisher.publish(topic, partition, records, signal);
      }
      await noted.publisher.publish(topic, partition, records.slice(0, position), signal);
      throw new RecordRejected(position, undefined);
    },
  };
  return {
    published: noted.published,
    publisher,
    stop: () => {
      isRefusing = false;
    },
  };
}

/** A partition as a consumer reads it, which brings what was not confirmed again; time passes only when it pauses. */
function readPartition(publisher: KafkaPublisher, records: ConsumedRecord[]) {
  let nowMs = 0;
  let confirmed = 0;
  const memory = newMemory(() => nowMs);
  const watermarks = openWatermarks(postgres);
  async function readOnce() {
    const done = await route(publisher, batchOf(records.slice(confirmed)), watermarks, memory);
    confirmed += done;
    if (done === 0) nowMs += 100;
  }
  return {
    readOnce,
    append: (more: ConsumedRecord[]) => records.push(...more),
    confirmed: () => confirmed,
    /** Reads until all is confirmed; answers how long that took. */
    async readAll() {
      while (confirmed < records.length) await readOnce();
      return nowMs;
    },
  };
}

/** What a router knows of a partition that it has just been given; time passes as the test says. */
function newMemory(now?: () => number): PartitionMemory {
  return { holds: openHolds(100, now), parked: new Set() };
}

let nextOffset = 1_000;

function record(
  conversationId: string,
  number: number,
  changes: Partial<ConsumedRecord> = {},
): ConsumedRecord {
  const headers = { ce_id: `${conversationId}:${number}`, sequence_number: String(number) };
  return {
    key: `conversation:${conversationId}`,
    value: Buffer.from("{}"),
    offset: String(nextOffset++),
    timestampMs: 0,
    ...changes,
    headers: { ...headers, ...changes.headers },
  };
}

function batchOf(records: ConsumedRecord[], changes: Partial<KafkaBatch> = {}): KafkaBatch {
  return {
    topic: topicNames(config).outbox,
    partition: 3,
    records,
    highWatermark: "0",
    isStale: () => false,
    signal: new AbortController().signal,
    heartbeat: async () => {},
    ...changes,
  };
}

async function watermark(conversationId: string): Promise<number> {
  const found = await openWatermarks(postgres).read(new Set([conversationId]));
  return found.get(conversationId) ?? 0;
}

test("raises a watermark only when every topic has acknowledged", async () => {
  const id = crypto.randomUUID();
  const mail = Promise.withResolvers<void>();
  const mailAsked = Promise.withResolvers<void>();
  const { published, publisher } = notePublished((topic) => {
    if (topic !== "channel.mail") return Promise.resolve();
    mailAsked.resolve();
    return mail.promise;
  });
  const routing = route(publisher, batchOf([record(id, 1, { headers: { channels: "mail" } })]));
  await mailAsked.promise;
  await Bun.sleep(50);
  expect(published).toEqual({ events: [`${id}:1`] });
  expect(await watermark(id)).toBe(0);

  mail.resolve();
  expect(await routing).toBe(1);
  expect(published["channel.mail"]).toEqual([`${id}:1`]);
  expect(await watermark(id)).toBe(1);
});

test("raises no watermark and confirms nothing when a topic fails", async () => {
  const id = crypto.randomUUID();
  const { publisher } = notePublished((topic) =>
    topic === "events" ? Promise.reject(new OperatingError("publish_aborted")) : Promise.resolve(),
  );
  expect(route(publisher, batchOf([record(id, 1)]))).rejects.toMatchObject({ code: "publish_aborted" });
  await Bun.sleep(50);
  expect(await watermark(id)).toBe(0);
});

test("drops repeats within a batch, across batches, and late ones", async () => {
  const id = crypto.randomUUID();
  const other = crypto.randomUUID();
  const { published, publisher } = notePublished();
  const watermarks = openWatermarks(postgres);
  const first = [1, 2, 1, 2, 3].map((number) => record(id, number));
  expect(await route(publisher, batchOf(first), watermarks)).toBe(5);
  const second = [record(id, 3), record(other, 1), record(id, 4), record(id, 2), record(id, 4)];
  expect(await route(publisher, batchOf(second), watermarks)).toBe(5);
  expect(await route(publisher, batchOf(second))).toBe(5);
  expect(published["events"]).toEqual([`${id}:1`, `${id}:2`, `${id}:3`, `${other}:1`, `${id}:4`]);
});

test("passes all headers on but the channels, and events of an unknown channel to the events topic", async () => {
  const id = crypto.randomUUID();
  let seen: KafkaRecord[] = [];
  const { published, publisher } = notePublished(async (topic, records) => {
    if (topic === "events") seen = records;
  });
  const headers = { channels: "sms,fax", traceparent: "00-a-b-01", ce_source: "/chat4all" };
  await route(publisher, batchOf([record(id, 1, { headers })]));
  expect(Object.keys(published).toSorted()).toEqual(["channel.sms", "events"]);
  expect(unknownChannels).toEqual(["fax"]);
  expect(seen[0]?.headers).toEqual({
    ce_id: `${id}:1`,
    sequence_number: "1",
    traceparent: "00-a-b-01",
    ce_source: "/chat4all",
  });
});

test("tries what it cannot read five times over three seconds, parks it once, and goes on with the partition", async () => {
  const id = crypto.randomUUID();
  const bytes = Buffer.from([0xff, 0x00, 0xfe]);
  const { published, publisher } = notePublished();
  const partition = readPartition(publisher, [
    record(id, 1),
    record(id, 2, { key: "nobody", offset: "11" }),
    record(id, 2, { key: null, value: bytes, offset: "12" }),
    record(id, 2, { key: "somebody", value: null, offset: "13" }),
    record(id, 2, { offset: "14" }),
  ]);
  await partition.readOnce();
  expect(published["events"]).toEqual([`${id}:1`, `${id}:2`]);
  expect(published["dead-letters"]).toBeUndefined();

  expect(await partition.readAll()).toBe(3_000);
  expect(published["events"]).toEqual([`${id}:1`, `${id}:2`]);
  expect(published["dead-letters"]).toHaveLength(3);
  const parked = await postgres.query<{ reason: string; tries: number; record: string }>(
    "select reason, tries, record from dead_letters where record ->> 'topic' = $1 order by record ->> 'offset'",
    [topicNames(config).outbox],
  );
  expect(parked.map(({ reason, tries }) => `${reason} ${tries}`)).toEqual(
    Array(3).fill("undecodable_record 5"),
  );
  expect(JSON.parse(String(parked[1]?.record))).toMatchObject({
    partition: 3,
    offset: "12",
    value_base64: bytes.toString("base64"),
  });
});

test("parks what a topic refuses after its tries, and meanwhile holds back its conversation alone", async () => {
  const [id, other, third] = [crypto.randomUUID(), crypto.randomUUID(), crypto.randomUUID()];
  const { published, publisher } = refuse(`${id}:2`);
  const partition = readPartition(publisher, [
    ...[1, 2, 3].map((number) => record(id, number)),
    ...[1, 2].map((number) => record(other, number)),
    record(id, 4),
  ]);
  await partition.readOnce();
  expect(partition.confirmed()).toBe(1);
  expect(published["events"]).toEqual([`${id}:1`, `${other}:1`, `${other}:2`]);
  partition.append([record(third, 1), record(other, 3)]);
  await partition.readOnce();
  expect(partition.confirmed()).toBe(1);
  expect(published["events"]?.slice(3)).toEqual([`${third}:1`, `${other}:3`]);
  expect(await watermark(id)).toBe(1);

  expect(await partition.readAll()).toBe(3_000);
  expect(published["events"]?.slice(5)).toEqual([`${id}:3`, `${id}:4`]);
  expect(published["dead-letters"]).toEqual([`${id}:2`]);
  const parked = await postgres.query(
    "select stage, sequence_number, reason, tries from dead_letters where conversation_id = $1",
    [id],
  );
  expect([...parked]).toEqual([{ stage: "router", sequence_number: 2, reason: "record_rejected", tries: 5 }]);
  expect(await watermark(id)).toBe(4);
});

test("goes on with a conversation whose record passes after all, and parks nothing", async () => {
  const id = crypto.randomUUID();
  const refused = refuse(`${id}:1`);
  const partition = readPartition(refused.publisher, [record(id, 1), record(id, 2)]);
  await partition.readOnce();
  await partition.readOnce();
  refused.stop();
  await partition.readAll();
  expect(refused.published).toEqual({ events: [`${id}:1`, `${id}:2`] });
  expect(await watermark(id)).toBe(2);
});

test("tries for ever what fails for the surroundings' sake, and counts no try", async () => {
  const id = crypto.randomUUID();
  let failuresLeft = 20;
  const { published, publisher } = notePublished(async () => {
    if (failuresLeft-- > 0) throw new OperatingError("publish_aborted");
  });
  const partition = readPartition(publisher, [record(id, 1)]);
  for (const _ of Array(20)) {
    const failure = await partition.readOnce().catch((error: OperatingError) => error.code);
    expect(failure).toBe("publish_aborted");
  }
  await partition.readAll();
  expect(published).toEqual({ events: [`${id}:1`] });
});

test("finds the one record on which the code fails, and parks that alone", async () => {
  const [id, other] = [crypto.randomUUID(), crypto.randomUUID()];
  const { published, publisher } = notePublished(async (topic, records) => {
    if (topic === "events" && records.some(({ headers }) => headers["ce_id"] === `${id}:1`))
      throw new TypeError("not what was expected");
  });
  await readPartition(publisher, [record(other, 1), record(id, 1), record(id, 2)]).readAll();
  expect(published).toEqual({ events: [`${other}:1`, `${id}:2`], "dead-letters": [`${id}:1`] });
  const parked = await postgres.query("select reason, tries from dead_letters where conversation_id = $1", [
    id,
  ]);
  expect([...parked]).toEqual([{ reason: "unexpected_error", tries: 5 }]);
});

test("forwards a replay past the watermark, once, and closes its letter; one that fails again stays its own", async () => {
  const id = crypto.randomUUID();
  const refused = refuse(`${id}:2`);
  await readPartition(
    refused.publisher,
    [1, 2, 3].map((number) => record(id, number)),
  ).readAll();
  const letters = () =>
    postgres.query<{ id: string; tries: number; replayed: boolean }>(
      "select id, tries, replayed_at is not null as replayed from dead_letters where conversation_id = $1",
      [id],
    );
  const [letter] = await letters();
  const replay = () => record(id, 2, { headers: { dead_letter_id: String(letter?.id) } });
  await readPartition(refused.publisher, [replay()]).readAll();
  expect([...(await letters())]).toEqual([{ id: String(letter?.id), tries: 10, replayed: false }]);

  const { published, publisher } = notePublished();
  await readPartition(publisher, [replay(), record(id, 4), replay(), record(id, 2)]).readAll();
  await readPartition(publisher, [replay()]).readAll();
  expect(published).toEqual({ events: [`${id}:2`, `${id}:4`] });
  expect([...(await letters())]).toEqual([{ id: String(letter?.id), tries: 10, replayed: true }]);
  expect(await watermark(id)).toBe(4);
});

test("confirms the slices that are done when the batch becomes stale or a later one fails", async () => {
  const id = crypto.randomUUID();
  const records = Array.from({ length: 2_500 }, (_, index) => record(id, index + 1));
  let calls = 0;
  const { publisher } = notePublished();
  expect(await route(publisher, batchOf(records, { isStale: () => calls++ === 1 }))).toBe(1_000);
  expect(await watermark(id)).toBe(1_000);

  const failing = notePublished(async (topic, sent) => {
    if (topic === "events" && sent.some(({ headers }) => headers["sequence_number"] === "2500"))
      throw new Error("no");
  });
  expect(await route(failing.publisher, batchOf(records))).toBe(2_000);
  expect(await watermark(id)).toBe(2_000);
});

test("never lowers a watermark, and sees another router's after a new assignment", async () => {
  const id = crypto.randomUUID();
  const stale = openWatermarks(postgres);
  await stale.raise(new Map([[id, 5]]));
  await openWatermarks(postgres).raise(new Map([[id, 9]]));
  expect((await stale.read(new Set([id]))).get(id)).toBe(5);
  stale.forget();
  expect((await stale.read(new Set([id]))).get(id)).toBe(9);
  await stale.raise(new Map([[id, 7]]));
  expect(await watermark(id)).toBe(9);
});
