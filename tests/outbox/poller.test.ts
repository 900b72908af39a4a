// The outbox poller against real Postgres and Kafka, with pollers in this thread so that a test can hold them up.
import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { type Config, topicNames } from "../../src/config.ts";
import { type Poller, type PollerTimes, pollerTimes, startPoller } from "../../src/outbox/poller.ts";
import { prepareShards } from "../../src/outbox/shards.ts";
import { type KafkaPublisher, openPublisher, readTopic } from "../../src/platform/kafka.ts";
import { openLog } from "../../src/platform/log.ts";
import type { Postgres } from "../../src/platform/postgres.ts";
import { openWatchdogs } from "../../src/platform/watchdog.ts";
import { connect, makeDatabase, type TestDatabase } from "../support/database.ts";
import { until } from "../support/until.ts";
import {
  firstOccurrences,
  kafkaOf,
  makeConfig,
  makeConversation,
  numbersOf,
  post,
  shardOf,
  upTo,
} from "../support/walk.ts";

setDefaultTimeout(30_000);

let database: TestDatabase;
let postgres: Postgres;
let config: Config;
const opened: { close(): Promise<unknown> }[] = [];

beforeEach(async () => {
  database = await makeDatabase();
  postgres = connect(database.url, 3);
  config = await makeConfig(database.url);
  await prepareShards(postgres, config.KAFKA_PARTITIONS);
});

afterEach(async () => {
  await Promise.all(opened.splice(0).map((each) => each.close()));
  await postgres.close();
  await database.drop();
});

interface TestPoller extends Poller {
  postgres: Postgres;
  leasePostgres: Postgres;
}

/** A poller with connections of its own; `guard` stands between it and its publisher. */
function open(
  guard: (publisher: KafkaPublisher) => KafkaPublisher = (publisher) => publisher,
  times: PollerTimes = pollerTimes,
): TestPoller {
  const own = { postgres: connect(database.url, 3), leasePostgres: connect(database.url) };
  const publisher = openPublisher(kafkaOf(config));
  const poller = startPoller({
    ...own,
    publisher: guard(publisher),
    topics: topicNames(config),
    pollerId: crypto.randomUUID(),
    log: openLog("test", "fatal"),
    watchdogs: openWatchdogs(),
    report: () => undefined,
    times,
  });
  opened.push({
    async close() {
      await poller.stop(0).catch(() => undefined);
      await Promise.all([publisher.close(), own.postgres.close(), own.leasePostgres.close()]);
    },
  });
  return { ...poller, ...own };
}

/** Holds every answer of a publisher, whatever its signal says, as a thread that stands still does. */
function holdAnswers() {
  const held = Promise.withResolvers<void>();
  const acknowledged = Promise.withResolvers<void>();
  const guard = (publisher: KafkaPublisher): KafkaPublisher => ({
    ...publisher,
    async publish(...args) {
      await publisher.publish(...args);
      acknowledged.resolve();
      await held.promise;
    },
  });
  return { guard, acknowledged: acknowledged.promise, letGo: () => held.resolve() };
}

const never: KafkaPublisher["publish"] = (_topic, _partition, _records, signal) =>
  new Promise((_resolve, reject) => signal.addEventListener("abort", () => reject(signal.reason)));

async function outboxRows(): Promise<number> {
  return (await postgres.query("select from outbox")).length;
}

const outboxTopic = () => readTopic(kafkaOf(config), topicNames(config).outbox);

test("publishes rows that nobody woke it for", async () => {
  const poller = open();
  await until(() => poller.shards().length === config.KAFKA_PARTITIONS, "it owns every shard");
  const id = await makeConversation(postgres, config, ["mail"]);
  await post(postgres, [id, id, id]);
  await until(async () => (await outboxRows()) === 0, "the outbox is empty", 2_000);

  const records = await outboxTopic();
  expect(numbersOf(records).get(id)).toEqual([1, 2, 3]);
  const first = records[0];
  const event = JSON.parse(String(first?.value));
  expect(first?.key).toBe(`conversation:${id}`);
  expect(event).toMatchObject({ event: "message.created", conversation_id: id, sequence_number: 1 });
  expect(first?.headers).toEqual({
    ce_specversion: "1.0",
    ce_id: `${id}:1`,
    ce_type: "chat4all.message.created.v1",
    ce_source: "/chat4all",
    ce_subject: id,
    ce_time: event.created_at,
    "content-type": "application/json",
    message_id: event.message_id,
    sequence_number: "1",
    traceparent: `00-${"ab".repeat(16)}-${"cd".repeat(8)}-01`,
    channels: "mail",
  });
});

test("lets a fenced owner only repeat", async () => {
  const paused = holdAnswers();
  const old = open(paused.guard);
  const id = await makeConversation(postgres, config);
  const shard = shardOf(config, id);
  await post(postgres, [id, id]);
  await paused.acknowledged;

  await postgres.query("update shard_leases set owner = null, expires_at = '-infinity'");
  await postgres.query("delete from pollers");
  await old.leasePostgres.close();
  await post(postgres, [id]);
  open();
  await until(async () => (await outboxRows()) === 0, "the outbox is empty");
  await post(postgres, [id]);
  paused.letGo();
  await until(async () => (await outboxRows()) === 0, "the outbox is empty");

  const numbers = numbersOf(await outboxTopic()).get(id) ?? [];
  expect(numbers).toEqual([1, 2, 1, 2, 3, 4]);
  expect(firstOccurrences(numbers)).toEqual(upTo(4));
  await until(() => !old.shards().includes(shard), "the old owner knows that it lost the shard");
});

test("does not remove rows in an epoch that is over", async () => {
  const paused = holdAnswers();
  open(paused.guard);
  const id = await makeConversation(postgres, config);
  await post(postgres, [id]);
  await paused.acknowledged;
  await postgres.query(
    "update shard_leases set owner = uuidv7(), epoch = epoch + 1, expires_at = 'infinity'",
  );
  paused.letGo();
  await Bun.sleep(300);
  expect(await outboxRows()).toBe(1);
});

test("shares shards evenly, and hands a dead poller's over within 5 s", async () => {
  const dying = open();
  await until(() => dying.shards().length === 4, "the first owns every shard");
  const living = open();
  await until(() => dying.shards().length === 2 && living.shards().length === 2, "both own a half", 3_000);
  expect(new Set([...dying.shards(), ...living.shards()])).toEqual(new Set([0, 1, 2, 3]));

  await dying.leasePostgres.close();
  await until(() => living.shards().length === 4, "the other owns every shard", 5_000);
  expect(dying.shards()).toEqual([]);
});

test("stops publishing a shard whose lease it cannot renew", async () => {
  const aborted = Promise.withResolvers<unknown>();
  const poller = open(
    (publisher) => ({
      ...publisher,
      publish: (...args) =>
        never(...args).catch((error) => {
          aborted.resolve(error);
          throw error;
        }),
    }),
    { ...pollerTimes, leaseMs: 600, renewIntervalMs: 100 },
  );
  const id = await makeConversation(postgres, config);
  await post(postgres, [id]);
  await until(() => poller.shards().length === 4, "it owns every shard");
  await poller.leasePostgres.close();
  expect(await aborted.promise).toMatchObject({ code: "lease_expired" });
  expect(poller.shards()).toEqual([]);
});

test("holds one batch of a shard, and asks Postgres nothing more, while Kafka is away", async () => {
  const ids = await Promise.all(upTo(40).map(() => makeConversation(postgres, config)));
  for (const _ of upTo(20)) await post(postgres, ids, { type: "custom", data: "x".repeat(5_000) });
  const sizes: number[] = [];
  const poller = open((publisher) => ({
    ...publisher,
    publish(...args) {
      sizes.push(args[2].reduce((bytes, record) => bytes + record.value.length, 0));
      return never(...args);
    },
  }));
  await until(() => sizes.length === 4, "four sends were made");
  const counted = await countQueries(poller.postgres, () => Bun.sleep(500));
  expect(counted).toBe(0);
  expect(sizes).toHaveLength(4);
  expect(Math.max(...sizes)).toBeLessThan(1.2 * 1024 * 1024);
});

test("parks a record that the broker refuses, and goes on with the shard", async () => {
  const id = await makeConversation(postgres, config);
  const huge = { type: "custom", data: "x".repeat(1_200_000) };
  await post(postgres, [id]);
  await post(postgres, [id], huge);
  await post(postgres, [id, id]);
  open();
  await until(async () => (await outboxRows()) === 0, "the outbox is empty");

  expect(numbersOf(await outboxTopic()).get(id)).toEqual([1, 3, 4]);
  const parked = await postgres.query<{
    stage: string;
    sequence_number: number;
    reason: string;
    record: string;
  }>("select stage, conversation_id, sequence_number, reason, tries, record from dead_letters");
  expect(parked).toHaveLength(1);
  expect(parked[0]).toMatchObject({ stage: "outbox", sequence_number: 2, reason: "record_rejected" });
  expect(JSON.parse(JSON.parse(String(parked[0]?.record)).value).payload).toEqual(huge);
  const letters = await readTopic(kafkaOf(config), topicNames(config).deadLetters);
  expect(letters.map(({ headers }) => [headers["ce_id"], headers["dead_letter_reason"]])).toEqual([
    [`${id}:2`, "record_rejected"],
  ]);
});

test("gives its shards back by the deadline of a stop, whatever Kafka does", async () => {
  const publishing = Promise.withResolvers<void>();
  const poller = open((publisher) => ({
    ...publisher,
    publish(...args) {
      publishing.resolve();
      return never(...args);
    },
  }));
  await post(postgres, [await makeConversation(postgres, config)]);
  await publishing.promise;

  const startedAtMs = performance.now();
  await poller.stop(200);
  expect(performance.now() - startedAtMs).toBeLessThan(1_000);
  expect(await postgres.query("select from shard_leases where owner is not null")).toHaveLength(0);
  expect(await postgres.query("select from pollers")).toHaveLength(0);
  expect(await outboxRows()).toBe(1);
});

test("refuses another number of shards than the database has", async () => {
  expect(prepareShards(postgres, 8)).rejects.toMatchObject({ code: "shards_mismatch" });
  await prepareShards(postgres, 4);
  expect(await postgres.query("select from shard_leases")).toHaveLength(4);
});

/** How many statements a pool is asked while `work` runs. */
async function countQueries(pool: Postgres, work: () => Promise<unknown>): Promise<number> {
  const { query } = pool;
  let count = 0;
  pool.query = (...args) => {
    count += 1;
    return query(...args) as never;
  };
  await work();
  pool.query = query;
  return count;
}
