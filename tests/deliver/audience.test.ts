// An instance that is alone spares Redis its events, and nobody who comes misses one for it.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { channelOf } from "../../src/deliver/bus.ts";
import { openRedis } from "../../src/platform/redis.ts";
import { until } from "../support/until.ts";
import { OwnRedis } from "./own-redis.ts";
import { log, RecordingSink, range, Stand, shards } from "./stand.ts";

let stand: Stand;
const redis = new OwnRedis();
beforeAll(async () => {
  stand = await Stand.open();
  await redis.start();
});
afterAll(async () => {
  await redis[Symbol.asyncDispose]();
  await stand[Symbol.asyncDispose]();
});

test("a lone instance publishes no events, and all of them from the moment another one listens", async () => {
  await using alone = await stand.openHub(redis.url);
  const conversationId = await stand.makeGroup("ann");
  // Listens to the conversation's channel as no instance does, so that it does not count as one.
  await using listener = openRedis({ url: redis.url, prefix: stand.prefix, log });
  const heard: string[] = [];
  const listening = Promise.withResolvers<void>();
  listener.hear({ message: (_channel, text) => heard.push(text), listening: () => listening.resolve() });
  listener.listen(channelOf(conversationId, shards));
  await listening.promise;

  let published = 0;
  const publishOne = async () => {
    alone.hub.publish(await stand.commit(conversationId));
    published += 1;
  };
  const heardAfterOne = async () => {
    const before = heard.length;
    await publishOne();
    // Redis keeps the order of what one connection publishes: after the signal all that came before was heard.
    const signals = heard.filter((text) => text.startsWith("S")).length;
    alone.hub.signal({ conversation_id: conversationId, frame: "{}" });
    await until(() => heard.filter((text) => text.startsWith("S")).length > signals, "the signal is heard");
    return heard.slice(before).filter((text) => text.startsWith("E")).length;
  };
  await until(async () => (await heardAfterOne()) === 0, "it knows that it is alone");

  const subscribed = new RecordingSink();
  await using newcomer = await stand.openHub(redis.url);
  await newcomer.hub.subscribe({ conversationId, userId: "ann", after: 0, sink: subscribed });
  await until(async () => (await heardAfterOne()) === 1, "it knows of the newcomer");
  await publishOne();
  await subscribed.until(published);
  expect(subscribed.numbers).toEqual(range(0, published));
});
