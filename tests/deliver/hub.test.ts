// Hubs of several instances on one Postgres and one Redis that comes and goes.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { until } from "../support/until.ts";
import { OwnRedis } from "./own-redis.ts";
import { RecordingSink, range, Stand } from "./stand.ts";

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

const millisecondsOfBus = 250;

describe("a subscription", () => {
  test("gets what is published here and what another instance publishes, in order and once", async () => {
    await using a = await stand.openHub(redis.url);
    await using b = await stand.openHub(redis.url);
    const conversationId = await stand.makeGroup("ann", "bob");
    const [ann, bob] = [new RecordingSink(), new RecordingSink()];
    await a.hub.subscribe({ conversationId, userId: "ann", after: undefined, sink: ann });
    await b.hub.subscribe({ conversationId, userId: "bob", after: undefined, sink: bob });
    for (let published = 0; published < 200; published += 1) {
      const events = await stand.commit(conversationId);
      (published % 2 === 0 ? a : b).hub.publish(events);
    }
    await Promise.all([ann.until(200), bob.until(200)]);
    expect(ann.numbers).toEqual(range(0, 200));
    expect(bob.numbers).toEqual(range(0, 200));
  });

  test("is brought up to date from any number, while more is published than it reads", async () => {
    await using a = await stand.openHub(redis.url);
    await using b = await stand.openHub(redis.url);
    const conversationId = await stand.makeGroup("ann");
    await stand.commit(conversationId, 1700);
    const sinks: [number, RecordingSink][] = [];
    const publishing = (async () => {
      for (let round = 0; round < 30; round += 1)
        (round % 2 === 0 ? a : b).hub.publish(await stand.commit(conversationId, 7));
    })();
    for (const after of [0, 1, 499, 500, 501, 1000, 1699, 1700]) {
      const sink = new RecordingSink();
      sinks.push([after, sink]);
      await (after % 2 === 0 ? a : b).hub.subscribe({ conversationId, userId: "ann", after, sink });
    }
    await publishing;
    for (const [after, sink] of sinks) {
      await sink.until(1910);
      expect(sink.numbers).toEqual(range(after, 1910));
    }
  });

  test("is refused to strangers, of no conversation, and beyond the last number", async () => {
    await using a = await stand.openHub(redis.url);
    const conversationId = await stand.makeGroup("ann");
    const request = { conversationId, userId: "ann", after: undefined, sink: new RecordingSink() };
    expect(a.hub.subscribe({ ...request, userId: "eve" })).rejects.toMatchObject({ status: 403 });
    expect(a.hub.subscribe({ ...request, conversationId: crypto.randomUUID() })).rejects.toMatchObject({
      status: 404,
    });
    expect(a.hub.subscribe({ ...request, after: 1 })).rejects.toMatchObject({ status: 400 });
  });

  test("gets nothing after it is closed", async () => {
    await using a = await stand.openHub(redis.url);
    const conversationId = await stand.makeGroup("ann");
    const [closed, open] = [new RecordingSink(), new RecordingSink()];
    const subscription = await a.hub.subscribe({ conversationId, userId: "ann", after: 0, sink: closed });
    await a.hub.subscribe({ conversationId, userId: "ann", after: 0, sink: open });
    subscription.close();
    a.hub.publish(await stand.commit(conversationId));
    expect(open.numbers).toEqual([1]);
    expect(closed.numbers).toEqual([]);
  });

  test("reads what an instance committed and never published", async () => {
    await using a = await stand.openHub(redis.url);
    const conversationId = await stand.makeGroup("ann");
    const sink = new RecordingSink();
    await a.hub.subscribe({ conversationId, userId: "ann", after: undefined, sink });
    await stand.commit(conversationId, 3);
    a.hub.publish(await stand.commit(conversationId));
    await sink.until(4);
    expect(sink.numbers).toEqual([1, 2, 3, 4]);
  });
});

describe("a removed member", () => {
  for (const isUp of [true, false]) {
    test(`gets nothing numbered after the removal, on any instance, with Redis ${isUp ? "there" : "away"}`, async () => {
      await using ownRedis = new OwnRedis();
      if (isUp) await ownRedis.start();
      const options = isUp ? {} : ({ away: true, pollIntervalMs: 20 } as const);
      await using a = await stand.openHub(ownRedis.url, options);
      await using b = await stand.openHub(ownRedis.url, options);
      const conversationId = await stand.makeGroup("ann", "bob");
      const [ann, bobHere, bobThere] = [new RecordingSink(), new RecordingSink(), new RecordingSink()];
      await b.hub.subscribe({ conversationId, userId: "ann", after: 0, sink: ann });
      await a.hub.subscribe({ conversationId, userId: "bob", after: 0, sink: bobHere });
      await b.hub.subscribe({ conversationId, userId: "bob", after: 0, sink: bobThere });
      const events = [
        await stand.commit(conversationId),
        [await stand.remove(conversationId, "ann", "bob")],
        await stand.commit(conversationId, 5),
      ];
      // The newest first: what comes out of turn is held back, and may not slip past the removal.
      for (const committed of events.toReversed()) a.hub.publish(committed);
      await ann.until(7);
      await until(() => bobHere.isRemoved && bobThere.isRemoved, "bob is cut off");
      expect(bobHere.numbers).toEqual([1, 2]);
      expect(bobThere.numbers).toEqual([1, 2]);
      expect(ann).toMatchObject({ numbers: range(0, 7), isRemoved: false });
      expect(
        a.hub.subscribe({ conversationId, userId: "bob", after: 0, sink: bobHere }),
      ).rejects.toMatchObject({ status: 403 });
    });
  }
});

describe("while Redis is away", () => {
  test("events of other instances come by polling, and by Redis again when it is back", async () => {
    await using ownRedis = new OwnRedis();
    await ownRedis.start();
    await using a = await stand.openHub(ownRedis.url, { pollIntervalMs: 200 });
    await using b = await stand.openHub(ownRedis.url, { pollIntervalMs: 200 });
    const conversationId = await stand.makeGroup("ann");
    const sink = new RecordingSink();
    await b.hub.subscribe({ conversationId, userId: "ann", after: undefined, sink });
    a.hub.publish(await stand.commit(conversationId));
    expect(await sink.until(1)).toBeLessThan(millisecondsOfBus);

    await ownRedis.kill();
    a.hub.publish(await stand.commit(conversationId));
    expect(await sink.until(2)).toBeLessThan(200 + millisecondsOfBus);
    expect(b.hub.state()).toBe("degraded");

    await ownRedis.start();
    await until(() => a.hub.state() === "up" && b.hub.state() === "up", "Redis is up again");
    // Longer than one poll while away takes, far shorter than the one while up.
    await Bun.sleep(400);
    a.hub.publish(await stand.commit(conversationId));
    expect(await sink.until(3)).toBeLessThan(millisecondsOfBus);
    expect(sink.numbers).toEqual([1, 2, 3]);
  });

  test("a Redis that hangs is taken for away within a second and a half", async () => {
    await using ownRedis = new OwnRedis();
    await ownRedis.start();
    await using a = await stand.openHub(ownRedis.url, { pollIntervalMs: 100 });
    await using b = await stand.openHub(ownRedis.url, { pollIntervalMs: 100 });
    const conversationId = await stand.makeGroup("ann");
    const sink = new RecordingSink();
    await b.hub.subscribe({ conversationId, userId: "ann", after: undefined, sink });
    ownRedis.pause();
    a.hub.publish(await stand.commit(conversationId));
    expect(await sink.until(1)).toBeLessThan(1500 + 100 + millisecondsOfBus);
    ownRedis.resume();
    await until(() => a.hub.state() === "up" && b.hub.state() === "up", "Redis is up again");
    a.hub.publish(await stand.commit(conversationId));
    expect(await sink.until(2)).toBeLessThan(millisecondsOfBus);
  });
});

test("what is committed before an instance is heard by Redis is not missed", async () => {
  await using ownRedis = new OwnRedis();
  await ownRedis.start();
  await using a = await stand.openHub(ownRedis.url);
  const conversationId = await stand.makeGroup("ann");
  const sink = new RecordingSink();
  ownRedis.pause();
  await a.hub.subscribe({ conversationId, userId: "ann", after: undefined, sink });
  await stand.commit(conversationId);
  ownRedis.resume();
  // Far sooner than the poll that is made while Redis is there.
  expect(await sink.until(1)).toBeLessThan(1000);
});

test("a temporary state reaches the others everywhere, and not its origin", async () => {
  await using a = await stand.openHub(redis.url);
  await using b = await stand.openHub(redis.url);
  const conversationId = await stand.makeGroup("ann", "bob");
  const [origin, here, there] = [new RecordingSink(), new RecordingSink(), new RecordingSink()];
  await a.hub.subscribe({ conversationId, userId: "ann", after: undefined, sink: origin });
  await a.hub.subscribe({ conversationId, userId: "bob", after: undefined, sink: here });
  await b.hub.subscribe({ conversationId, userId: "bob", after: undefined, sink: there });
  a.hub.signal({ conversation_id: conversationId, frame: '{"type":"typing"}' }, origin);
  await until(() => there.signals.length > 0, "the signal is there");
  expect([origin.signals, here.signals, there.signals]).toEqual([
    [],
    ['{"type":"typing"}'],
    ['{"type":"typing"}'],
  ]);
});

test("a revocation is told to every instance", async () => {
  await using a = await stand.openHub(redis.url);
  await using b = await stand.openHub(redis.url);
  const told: string[] = [];
  a.hub.onRevoked((tokenIds) => told.push(`a ${tokenIds.join()}`));
  b.hub.onRevoked((tokenIds) => told.push(`b ${tokenIds.join()}`));
  a.hub.revoke(["one", "two"]);
  await until(() => told.length === 2, "both were told");
  expect(told).toEqual(["a one,two", "b one,two"]);
});
