// What was parked, and its way back, through a whole node: state, calls, order on the topics.
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { topicNames } from "../../src/config.ts";
import { openPublisher, readTopic } from "../../src/platform/kafka.ts";
import { type Answer, startServer, type TestServer } from "../support/server.ts";
import { lowerTopicLimit, setTopicLimit } from "../support/topic-limit.ts";
import { until } from "../support/until.ts";
import { kafkaOf, numbersOf } from "../support/walk.ts";

setDefaultTimeout(40_000);

let server: TestServer;
let adminToken: string;
beforeAll(async () => {
  // All conversations are on the one partition.
  server = await startServer({ KAFKA_PARTITIONS: "1" });
  adminToken = await server.token("operator", { scope: "admin" });
});
afterAll(() => server[Symbol.asyncDispose]());

const large = "x".repeat(4_000);
const asAdmin = (method: string, path: string, body?: unknown) =>
  server.call(method, `/v1/admin/dead-letters${path}`, body, { token: adminToken });

async function stateOf(conversationId: string, number: number): Promise<string> {
  const answer = await server.call("GET", `/v1/conversations/${conversationId}/messages/${number}`);
  return answer.body.state;
}

const untilState = (conversationId: string, number: number, state: string) =>
  until(async () => (await stateOf(conversationId, number)) === state, `#${number} is ${state}`);

async function lettersOf(conversationId: string, state = "open"): Promise<Answer["body"][]> {
  const { body } = await asAdmin("GET", `?conversation_id=${conversationId}&state=${state}`);
  return body.items;
}

const eventsTopic = () => readTopic(kafkaOf(server.config), topicNames(server.config).events);

test("a message that the events topic refuses fails, holds back nobody else, and is delivered by its replay", async () => {
  const { events } = topicNames(server.config);
  const [held, other] = [await server.makeGroup(["bob"]), await server.makeGroup(["bob"])];
  await lowerTopicLimit(server.config, events, 2_000);
  await server.post(held, "one");
  await server.post(held, large);
  await server.post(held, "three");
  await server.post(held, large);
  await server.post(other, "one");
  await untilState(other, 1, "delivered");
  await untilState(held, 4, "failed");
  expect([await stateOf(held, 2), await stateOf(held, 3)]).toEqual(["failed", "delivered"]);

  const open = await lettersOf(held);
  expect(open.map(({ sequence_number }) => sequence_number)).toEqual([4, 2]);
  expect(open[1]).toEqual({
    id: expect.any(String),
    stage: "router",
    conversation_id: held,
    sequence_number: 2,
    reason: "record_rejected",
    tries: 5,
    parked_at: expect.any(String),
    replay_requested_at: null,
    replayed_at: null,
  });

  // It fails again while the topic is as it was, and stays the one letter that it is.
  const again = await asAdmin("POST", `/${open[1].id}/replay`);
  expect(again).toMatchObject({ status: 202, body: { id: open[1].id, state: "enqueued" } });
  await until(async () => (await lettersOf(held))[1].tries === 10, "it has failed again");
  expect(await stateOf(held, 2)).toBe("failed");

  await setTopicLimit(server.config, events, 1_000_000);
  const replays = await asAdmin("POST", "/replay", { conversation_id: held });
  expect(replays).toMatchObject({ status: 202, body: { accepted: 2, has_more: false } });
  await untilState(held, 4, "delivered");
  await untilState(held, 2, "delivered");
  expect(await lettersOf(held)).toEqual([]);
  expect((await lettersOf(held, "replayed")).map(({ id }) => id)).toEqual(open.map(({ id }) => id));
  expect(await asAdmin("POST", `/${open[1].id}/replay`)).toMatchObject({
    status: 409,
    body: { code: "already_replayed" },
  });

  const all = await eventsTopic();
  const ids = all.map(({ headers }) => headers["ce_id"]);
  // What is behind it waited until it was parked, and nobody else did.
  expect(ids.indexOf(`${other}:1`)).toBeLessThan(ids.indexOf(`${held}:3`));
  const records = all.filter(({ key }) => key === `conversation:${held}`);
  expect(numbersOf(records).get(held)).toEqual([1, 3, 2, 4]);
  expect(records.map(({ headers }) => headers["dead_letter_id"])).toEqual([
    undefined,
    undefined,
    open[1].id,
    open[0].id,
  ]);
});

test("the last message of a conversation, parked before the topic, is delivered by its replay", async () => {
  const id = await server.makeGroup(["bob"]);
  await server.postgres.script(`
    create function spoil() returns trigger language plpgsql as
      'begin new.created_at := ''infinity''; return new; end';
    create trigger spoil before insert on messages for each row when (new.conversation_id = '${id}')
      execute function spoil()`);
  await server.post(id, "one");
  await until(async () => (await lettersOf(id)).length === 1, "it is parked");
  await server.postgres.query("update messages set created_at = now() where conversation_id = $1", [id]);
  expect(await stateOf(id, 1)).toBe("failed");
  expect((await asAdmin("POST", "/replay")).body).toEqual({ accepted: 1, has_more: false });
  await untilState(id, 1, "delivered");
});

test("garbage on the outbox topic is parked, and cannot be replayed", async () => {
  const publisher = openPublisher(kafkaOf(server.config));
  const id = await server.makeGroup(["bob"]);
  const garbage = { key: `conversation:${id}`, value: "garbage", headers: { sequence_number: "many" } };
  await publisher.publish(topicNames(server.config).outbox, 0, [garbage], new AbortController().signal);
  await publisher.close();
  // Its key says whose it is: that conversation waits for it.
  await server.post(id, "one");
  const isForeign = (letter: Answer["body"]) => letter.conversation_id === null;
  await until(async () => (await asAdmin("GET", "")).body.items.some(isForeign), "it is parked");
  await untilState(id, 1, "delivered");
  const letter = (await asAdmin("GET", "")).body.items.find(isForeign);
  expect(letter).toMatchObject({ stage: "router", reason: "undecodable_record", tries: 5 });
  expect(await asAdmin("POST", `/${letter.id}/replay`)).toMatchObject({
    status: 409,
    body: { code: "not_replayable" },
  });
});
