// Rows of the outbox to the public topics, through both workers on their threads and real servers.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { topicNames } from "../../src/config.ts";
import { readTopic } from "../../src/platform/kafka.ts";
import { openLog } from "../../src/platform/log.ts";
import { startWorkers } from "../../src/supervise.ts";
import { connect, makeDatabase, type TestDatabase } from "../support/database.ts";
import {
  firstOccurrences,
  kafkaOf,
  makeConfig,
  makeConversation,
  numbersOf,
  post,
  shardOf,
  untilRouted,
  upTo,
} from "../support/walk.ts";

let database: TestDatabase;
beforeAll(async () => {
  database = await makeDatabase();
});
afterAll(() => database.drop());

test("carries what three writers commit at once to the public topics, in order", async () => {
  await using postgres = connect(database.url, 3);
  const config = await makeConfig(database.url, { ROLES: "outbox,router", CHANNELS: "mail,sms" });
  const ids = await Promise.all(
    upTo(12).map((number) => makeConversation(postgres, config, number % 2 ? ["mail"] : [])),
  );
  const workers = await startWorkers({
    config,
    instanceId: crypto.randomUUID(),
    log: openLog("test", "fatal"),
    onGiveUp: () => undefined,
  });
  await Promise.all(
    upTo(3).map(async () => {
      for (let round = 0; round < 20; round += 1) {
        await post(postgres, ids);
        workers.wake(ids.map((id) => shardOf(config, id)));
      }
    }),
  );
  await untilRouted(postgres);
  await workers.stop(5_000);

  const topics = topicNames(config);
  for (const topic of [topics.outbox, topics.events]) {
    const records = await readTopic(kafkaOf(config), topic);
    const numbers = numbersOf(records);
    for (const id of ids) expect(firstOccurrences(numbers.get(id) ?? [])).toEqual(upTo(60));
    for (const record of records) {
      expect(record.partition).toBe(shardOf(config, String(record.headers["ce_subject"])));
    }
  }
  const mail = numbersOf(await readTopic(kafkaOf(config), topics.channel("mail")));
  expect([...mail.keys()].toSorted()).toEqual(ids.filter((_, index) => index % 2 === 0).toSorted());
  for (const numbers of mail.values()) expect(firstOccurrences(numbers)).toEqual(upTo(60));
  expect(await readTopic(kafkaOf(config), topics.channel("sms"))).toEqual([]);
});
