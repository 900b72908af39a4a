// Messages that cannot be passed, in the outbox: what they hold back, for how long, and what of them is kept.
import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { type Config, topicNames } from "../../src/config.ts";
import { drainShard } from "../../src/outbox/drain.ts";
import { startPoller } from "../../src/outbox/poller.ts";
import { prepareShards } from "../../src/outbox/shards.ts";
import { openHolds } from "../../src/platform/holds.ts";
import {
  type KafkaPublisher,
  type KafkaRecord,
  openPublisher,
  RecordRejected,
  readTopic,
} from "../../src/platform/kafka.ts";
import { openLog } from "../../src/platform/log.ts";
import type { Postgres } from "../../src/platform/postgres.ts";
import { openWatchdogs } from "../../src/platform/watchdog.ts";
import { connect, makeDatabase, type TestDatabase } from "../support/database.ts";
import { lowerTopicLimit, setTopicLimit } from "../support/topic-limit.ts";
import { until } from "../support/until.ts";
import { kafkaOf, makeConfig, makeConversation, numbersOf, post } from "../support/walk.ts";

setDefaultTimeout(30_000);

const large = { type: "text", text: "x".repeat(4_000) };
const log = openLog("test", "fatal");
let database: TestDatabase;
let postgres: Postgres;
let config: Config;
const opened: { close(): Promise<unknown> }[] = [];

beforeEach(async () => {
  database = await makeDatabase();
  postgres = connect(database.url, 3);
  // All conversations are on the one shard.
  config = await makeConfig(database.url, { KAFKA_PARTITIONS: "1" });
  await prepareShards(postgres, 1);
});

afterEach(async () => {
  await Promise.all(opened.splice(0).map((each) => each.close()));
  await postgres.close();
  await database.drop();
});

/** Told of each send: before it, and how it ended. */
interface SendHooks {
  onSend?(ids: string[], topic: string): Promise<void> | void;
  onRefused?(ids: string[]): Promise<void> | void;
}

function open(hooks: SendHooks = {}, pollerId = crypto.randomUUID()) {
  const own = { postgres: connect(database.url, 3), leasePostgres: connect(database.url) };
  const publisher = openPublisher(kafkaOf(config));
  const watched: KafkaPublisher = {
    ...publisher,
    async publish(topic, partition, records, signal) {
      const ids = records.map(idOf);
      await hooks.onSend?.(ids, topic);
      try {
        await publisher.publish(topic, partition, records, signal);
      } catch (error) {
        if (error instanceof RecordRejected) await hooks.onRefused?.(ids);
        throw error;
      }
    },
  };
  const poller = startPoller({
    ...own,
    publisher: watched,
    topics: topicNames(config),
    pollerId,
    log,
    watchdogs: openWatchdogs(),
    report: () => undefined,
  });
  opened.push({
    async close() {
      await poller.stop(0).catch(() => undefined);
      await Promise.all([publisher.close(), own.postgres.close(), own.leasePostgres.close()]);
    },
  });
  return poller;
}

const idOf = ({ headers }: { headers: Record<string, string> }) => String(headers["ce_id"]);

/** What waits in the outbox, in its order, as `conversation:number`. */
async function waiting(): Promise<string[]> {
  const rows = await postgres.query<{ id: string }>(`
    select u.c || ':' || u.n as id from outbox o, unnest(o.conversation_ids, o.sequence_numbers)
      with ordinality as u(c, n, ord) order by o.id, u.ord`);
  return rows.map(({ id }) => id);
}

interface Letter {
  id: string;
  sequence_number: number;
  stage: string;
  reason: string;
  tries: number;
}

async function letters(): Promise<Letter[]> {
  const rows = await postgres.query<Letter>(
    "select id, sequence_number, stage, reason, tries from dead_letters order by sequence_number",
  );
  return [...rows];
}

const untilEmpty = () => until(async () => (await waiting()).length === 0, "the outbox is empty");
const outboxTopic = async () => {
  const records = await readTopic(kafkaOf(config), topicNames(config).outbox);
  return records.filter(({ key }) => key !== "probe");
};

test("holds back a refused message's conversation alone, parks it after its tries, and goes on behind it", async () => {
  const topics = topicNames(config);
  const [held, other] = [await makeConversation(postgres, config), await makeConversation(postgres, config)];
  await lowerTopicLimit(config, topics.outbox, 2_000);
  await post(postgres, [held]);
  await post(postgres, [held], large);
  await post(postgres, [held, other, held]);
  const alone: number[] = [];
  const firstRefusal = Promise.withResolvers<void>();
  const waitingAtParking = Promise.withResolvers<string[]>();
  open({
    async onSend(ids, topic) {
      if (topic === topics.deadLetters) waitingAtParking.resolve(await waiting());
      else if (ids.join() === `${held}:2`) alone.push(performance.now());
    },
    onRefused: () => firstRefusal.resolve(),
  });

  await firstRefusal.promise;
  for (const number of [2, 3, 4]) {
    await post(postgres, [other]);
    await until(async () => !(await waiting()).includes(`${other}:${number}`), `other ${number} has passed`);
  }
  // The row that was mixed has lost what is published of it.
  expect(await waitingAtParking.promise).toEqual([`${held}:2`, `${held}:3`, `${held}:4`]);
  await untilEmpty();

  expect(await letters()).toEqual([
    { id: expect.any(String), sequence_number: 2, stage: "outbox", reason: "record_rejected", tries: 5 },
  ]);
  const pausesMs = alone.slice(1).map((atMs, index) => Math.round(atMs - (alone[index] ?? 0)));
  expect(pausesMs.map((pauseMs, index) => pauseMs >= 400 * 2 ** index)).toEqual([true, true, true]);
  const records = await outboxTopic();
  const ids = records.map(idOf);
  expect(ids.indexOf(`${other}:2`)).toBeLessThan(ids.indexOf(`${held}:3`));
  const numbers = numbersOf(records);
  expect(numbers.get(held)).toEqual([1, 3, 4]);
  expect(numbers.get(other)).toEqual([1, 2, 3, 4]);
  const [letter] = await readTopic(kafkaOf(config), topics.deadLetters);
  expect(JSON.parse(String(letter?.value)).payload).toEqual(large);
  expect(letter?.headers).toMatchObject({
    ce_id: `${held}:2`,
    dead_letter_stage: "outbox",
    dead_letter_reason: "record_rejected",
    dead_letter_tries: "5",
  });
});

test("parks a message that cannot be encoded, and publishes its replay once it can", async () => {
  const id = await makeConversation(postgres, config, ["mail"]);
  await post(postgres, [id, id, id]);
  const [stored] = await postgres.query<{ created_at: Date }>(
    "select created_at from messages where sequence_number = 2",
  );
  await postgres.query("update messages set created_at = 'infinity' where sequence_number = 2");
  open();
  await untilEmpty();
  const [letter] = await letters();
  expect(letter).toMatchObject({ sequence_number: 2, stage: "outbox", reason: "encoding_failed", tries: 5 });

  await postgres.query("select replay_dead_letter($1, null)", [String(letter?.id)]);
  await until(async () => (await letters())[0]?.tries === 10, "it has failed again");
  expect(await letters()).toHaveLength(1);
  expect(await waiting()).toEqual([]);

  await postgres.query("update messages set created_at = $1 where sequence_number = 2", [
    stored?.created_at ?? null,
  ]);
  await postgres.query("select replay_dead_letter($1, null)", [String(letter?.id)]);
  await untilEmpty();
  const records = await outboxTopic();
  expect(numbersOf(records).get(id)).toEqual([1, 3, 2]);
  expect(records.map(({ headers }) => headers["dead_letter_id"])).toEqual([undefined, undefined, letter?.id]);
  expect(records[2]?.headers["channels"]).toBe("mail");
});

test("loses and reorders nothing when the poller stands still before the parking, and its shard is another's", async () => {
  const topics = topicNames(config);
  const id = await makeConversation(postgres, config);
  await lowerTopicLimit(config, topics.outbox, 2_000);
  await post(postgres, [id]);
  await post(postgres, [id], large);
  await post(postgres, [id, id]);
  const parking = Promise.withResolvers<void>();
  const standingStill = Promise.withResolvers<void>();
  const old = open({
    async onSend(_ids, topic) {
      if (topic !== topics.deadLetters) return;
      parking.resolve();
      await standingStill.promise;
    },
  });
  await parking.promise;
  await setTopicLimit(config, topics.outbox, 1_000_000);
  const next = crypto.randomUUID();
  await postgres.query(
    `update shard_leases set owner = $1, epoch = epoch + 1, expires_at = clock_timestamp() + interval '2 seconds'`,
    [next],
  );
  open({}, next);
  await until(() => old.shards().length === 0, "the old owner knows that it lost the shard");
  await untilEmpty();
  standingStill.resolve();
  await post(postgres, [id]);
  await untilEmpty();

  // The new owner passed it: the old one must not park it then.
  expect(numbersOf(await outboxTopic()).get(id)).toEqual([1, 2, 3, 4, 5]);
  expect(await letters()).toEqual([]);
});

test("neither parks nor cuts in an epoch that is over", async () => {
  const id = await makeConversation(postgres, config);
  await post(postgres, [id, id]);
  const [row] = await postgres.query<{ id: number }>("select id from outbox");
  const pollerId = crypto.randomUUID();
  await postgres.query("update shard_leases set owner = $1, epoch = 2, expires_at = 'infinity'", [pollerId]);
  const rowId = row?.id ?? 0;
  const parked = await postgres.query(
    "select park_outbox_record(0::smallint, $1, $2, 1, $3, 1, 'x', 5, '{}') as done",
    [rowId, id, pollerId],
  );
  const cut = await postgres.query("select cut_outbox_rows(0::smallint, $1, $2, $3, $4, 1) as done", [
    [rowId],
    [id],
    [1],
    pollerId,
  ]);
  expect([...parked, ...cut]).toEqual([{ done: false }, { done: false }]);
  expect(await waiting()).toEqual([`${id}:1`, `${id}:2`]);
  expect(await letters()).toEqual([]);
});

test("sends replays of a conversation in the order of their numbers, before and behind others", async () => {
  const [id, other] = [await makeConversation(postgres, config), await makeConversation(postgres, config)];
  await post(postgres, [id, id, other, id]);
  await postgres.query(`insert into dead_letters (stage, conversation_id, sequence_number, reason, tries, record)
    select 'outbox', conversation_id, sequence_number, 'record_rejected', 5, '{}' from messages
    order by sequence_number desc`);
  await postgres.query("delete from outbox");
  const replay = () => postgres.query<{ n: number }>("select replay_dead_letters($1, 500, null) as n", [id]);
  expect([...(await replay())]).toEqual([{ n: 3 }]);
  expect([...(await replay())]).toEqual([{ n: 0 }]);
  await postgres.query("select replay_dead_letters(null, 500, null)");
  await post(postgres, [id]);
  open();
  await untilEmpty();
  const numbers = numbersOf(await outboxTopic());
  expect(numbers.get(id)).toEqual([1, 2, 3, 4]);
  expect(numbers.get(other)).toEqual([1]);
});

/** A drain of the one shard with a publisher that refuses some conversations; time passes as the test says. */
function drainBy(refused: string[], heldMax: number) {
  const clock = { nowMs: 0 };
  const published: string[] = [];
  let statements = 0;
  const holds = openHolds(heldMax, () => clock.nowMs);
  const publisher: KafkaPublisher = {
    async publish(topic, _partition, records: KafkaRecord[]) {
      if (topic !== topicNames(config).outbox) return;
      const position = records.findIndex(({ key }) => refused.some((id) => key.endsWith(id)));
      published.push(...records.slice(0, position === -1 ? records.length : position).map(idOf));
      if (position >= 0) throw new RecordRejected(position, undefined);
    },
    state: () => "up",
    close: async () => undefined,
  };
  const counting = {
    ...postgres,
    query: ((...args: Parameters<Postgres["query"]>) => {
      statements += 1;
      return postgres.query(...args);
    }) as Postgres["query"],
  };
  const pollerId = crypto.randomUUID();
  const lease = {
    shard: 0,
    epoch: 1,
    signal: new AbortController().signal,
    isHeld: () => true,
    lose: () => expect.unreachable(),
  };
  const tools = { postgres: counting, publisher, topics: topicNames(config), pollerId, log };
  const watchdog = openWatchdogs().watch(1_000);
  return {
    clock,
    published,
    statements: () => statements,
    async run() {
      await postgres.query("update shard_leases set owner = $1, epoch = 1, expires_at = 'infinity'", [
        pollerId,
      ]);
      statements = 0;
      await drainShard(tools, lease, holds, watchdog, new AbortController().signal);
    },
  };
}

test("asks Postgres three times for a batch without a fault: to read it, to remove it, and for the next", async () => {
  await post(postgres, [await makeConversation(postgres, config), await makeConversation(postgres, config)]);
  const drain = drainBy([], 100);
  await drain.run();
  expect(drain.statements()).toBe(3);
  expect(drain.published).toHaveLength(2);
});

test("lets the shard wait while as many conversations are held back as may be", async () => {
  const ids = await Promise.all([1, 2, 3, 4].map(() => makeConversation(postgres, config)));
  const [, , , good] = ids;
  for (const id of ids) await post(postgres, [id, id]);
  const drain = drainBy(ids.slice(0, 3), 2);
  await drain.run();
  await drain.run();
  expect(drain.published).toEqual([]);
  expect(drain.statements()).toBe(0);

  for (let run = 0; (await waiting()).length > 0 && run < 100; run += 1) {
    drain.clock.nowMs += 100;
    await drain.run();
  }
  expect(drain.published).toEqual([`${good}:1`, `${good}:2`]);
  expect((await letters()).map(({ tries }) => tries)).toEqual(Array(6).fill(5));
});
