// The buckets of rate limits: the script in Redis against the same in TypeScript, both against what a limit promises,
// and what is asked of a Redis that fails.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import * as fc from "fast-check";
import { type Bucket, openRateBuckets } from "../../src/edge/rate-buckets.ts";
import script from "../../src/edge/take-tokens.lua" with { type: "text" };
import {
  type BucketSize,
  bucketSize,
  giveTokensBack,
  remainingOf,
  takeTokens,
} from "../../src/edge/token-bucket.ts";
import { OperatingError } from "../../src/model/errors.ts";
import { openRedis, type Redis } from "../../src/platform/redis.ts";
import { log } from "../deliver/stand.ts";
import { until } from "../support/until.ts";

const hourUs = 3_600_000_000;
const sizes = { user: bucketSize(3), conversation: bucketSize(20) };
const perSecond = fc.oneof(fc.integer({ min: 1, max: 30 }), fc.integer({ min: 31, max: 1_000_000 }));
/** Moments in order, in microseconds. */
const forwards = fc
  .array(fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 300_000 }), fc.integer({ max: hourUs, min: 0 })))
  .map((steps) => {
    let now = 1_700_000_000_000_000;
    return steps.map((step) => {
      now += step;
      return now;
    });
  });

describe("a bucket", () => {
  const take = (buckets: Map<string, number>, size: BucketSize, nowUs: number) =>
    takeTokens(buckets, [{ key: "key", size }], nowUs);

  test("gives twice a second's tokens at once, and then one in each interval", () => {
    fc.assert(
      fc.property(perSecond, forwards, (rate, moments) => {
        const size = bucketSize(rate);
        const buckets = new Map<string, number>();
        const fullUs = size.capacity * size.intervalUs;
        let levelUs = fullUs;
        let last = moments[0] ?? 0;
        for (const now of moments) {
          levelUs = Math.min(fullUs, levelUs + now - last);
          last = now;
          const isThere = levelUs >= size.intervalUs;
          if (isThere) levelUs -= size.intervalUs;
          const { refusedBy, untilFullUs } = take(buckets, size, now);
          expect(refusedBy).toBe(isThere ? undefined : 0);
          expect(untilFullUs).toEqual([fullUs - levelUs]);
          expect(remainingOf(size, fullUs - levelUs)).toBe(Math.floor(levelUs / size.intervalUs));
        }
      }),
      { seed: 1 },
    );
  });

  test("locks nobody out after its clock was set back, and gives nothing away", () => {
    const size = bucketSize(20);
    const backUs = fc.oneof(fc.integer({ min: 1, max: 3_000_000 }), fc.integer({ min: 1, max: hourUs }));
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 41 }), backUs, (taken, back) => {
        const buckets = new Map<string, number>();
        const now = 1_700_000_000_000_000;
        for (let count = 0; count < taken; count += 1) take(buckets, size, now);
        const left = Math.max(40 - taken, 0);
        let given = 0;
        while (take(buckets, size, now - back).refusedBy === undefined) given += 1;
        expect(given).toBeLessThanOrEqual(left);
        given = 0;
        while (take(buckets, size, now - back + 2_000_000).refusedBy === undefined) given += 1;
        expect(given).toBe(40);
      }),
      { seed: 2 },
    );
  });
});

describe("in Redis", () => {
  const url = process.env["TEST_REDIS_URL"] ?? "";
  const prefix = `test-${crypto.randomUUID()}:`;
  let redis: Redis;
  beforeAll(async () => {
    redis = openRedis({ url, prefix, log });
    await until(() => redis.state() === "up", "Redis is up");
  });
  afterAll(async () => await redis?.close());

  // The time is an argument, and keys do not end by Redis's own time.
  const timed = script
    .replace("redis.call('TIME')", "{ tonumber(ARGV[6]), tonumber(ARGV[7]) }")
    .replace(/'PX', .*\)$/m, "'PX', 60000)");

  test("the script answers as the arithmetic here does, also when the clock jumps", async () => {
    expect(timed).toMatch(/ARGV\[7\][^]*60000/);
    const check = fc.record({ letter: fc.constantFrom("u", "c", "b", "b", "U", "C", "B"), id: fc.nat(2) });
    const step = fc.record({
      byUs: fc.oneof(
        fc.constant(0),
        fc.integer({ min: 0, max: 400_000 }),
        fc.constantFrom(-hourUs, hourUs, -1, -500_000),
      ),
      checks: fc.array(check, { minLength: 1, maxLength: 12 }),
    });
    // A client that waits: ours gives a command up after 100 ms.
    const patient = new Bun.RedisClient(url);
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 20 }), async (steps) => {
        const run = prefix + crypto.randomUUID();
        const buckets = new Map<string, number>();
        let now = 1_700_000_000_000_000;
        for (const { byUs, checks } of steps) {
          now += byUs;
          const tokensOf = ({ letter, id }: (typeof checks)[number]) => {
            const owners = { u: ["user"], c: ["conversation"], b: ["user", "conversation"] } as const;
            return owners[letter.toLowerCase() as "u"].map((owner: "user" | "conversation") => ({
              key: `${run}:${owner}:${id}`,
              size: sizes[owner],
            }));
          };
          const expected = checks.flatMap((each) => {
            const tokens = tokensOf(each);
            if (each.letter === each.letter.toLowerCase()) {
              const { refusedBy, untilFullUs } = takeTokens(buckets, tokens, now);
              return [refusedBy === undefined ? 0 : refusedBy + 1, ...untilFullUs];
            }
            giveTokensBack(buckets, tokens, now);
            return [0, ...tokens.map(({ key }) => (buckets.get(key) ?? 0) - now)];
          });
          const { user, conversation } = sizes;
          const keys = checks.flatMap((each) => tokensOf(each).map(({ key }) => key));
          const letters = checks.map(({ letter }) => letter).join("");
          const limits = [user.intervalUs, user.capacity, conversation.intervalUs, conversation.capacity];
          const args = [...limits, letters, Math.floor(now / 1_000_000), now % 1_000_000];
          const answer = await patient.send("EVAL", [timed, keys.length, ...keys, ...args].map(String));
          expect(answer).toEqual(expected);
        }
      }),
      { seed: 3 },
    );
    patient.close();
  });

  test("a time that a clock wrote which was since set back empties a bucket at most", async () => {
    const user: Bucket = { owner: "user", id: crypto.randomUUID() };
    const buckets = openRateBuckets(redis, { user: bucketSize(1000), conversation: bucketSize(1) });
    const inAnHour = (Date.now() + 3_600_000) * 1000;
    await redis.set(`rate:user:${user.id}`, String(inAnHour), 60_000);
    expect((await buckets.take([user])).refusedBy).toBe(0);
    await until(async () => (await buckets.take([user])).refusedBy === undefined, "there is a token", 5000);
  });

  test("keys end by themselves once their bucket is full", async () => {
    const user: Bucket = { owner: "user", id: crypto.randomUUID() };
    const buckets = openRateBuckets(redis, sizes);
    for (let count = 0; count < 10; count += 1) await buckets.take([user]);
    const lifetime = await redis.evaluate("return redis.call('PTTL', KEYS[1])", [`rate:user:${user.id}`], []);
    expect(lifetime).toBeGreaterThan(0);
    expect(lifetime).toBeLessThanOrEqual(2000);
  });
});

describe("asking Redis", () => {
  const alice: Bucket = { owner: "user", id: "alice" };
  const generous = { user: bucketSize(3), conversation: bucketSize(1000) };
  const counting = (answer: (keys: readonly string[]) => Promise<unknown>) => {
    const calls: number[] = [];
    return {
      calls,
      circuitState: () => "closed" as ReturnType<Redis["circuitState"]>,
      evaluate(_script: string, keys: readonly string[]) {
        calls.push(keys.length);
        return answer(keys);
      },
    };
  };
  const away = () => Promise.reject(new OperatingError("redis_unavailable"));

  test("checks of the same turn share a call, of a bounded size, and are answered in order", async () => {
    const redis = counting(async (keys) => keys.flatMap((_, index) => [0, index]));
    const buckets = openRateBuckets(redis, generous);
    const answers = await Promise.all(Array.from({ length: 600 }, () => buckets.take([alice])));
    expect(redis.calls).toEqual([512, 88]);
    expect(answers.map(({ untilFullUs }) => untilFullUs[0])).toEqual([
      ...Array.from({ length: 512 }, (_, index) => index),
      ...Array.from({ length: 88 }, (_, index) => index),
    ]);
  });

  test("while Redis fails, this instance judges alone and asks once in a while only", async () => {
    const redis = counting(away);
    const buckets = openRateBuckets(redis, generous);
    const refusals: unknown[] = [];
    for (let count = 0; count < 8; count += 1) refusals.push((await buckets.take([alice])).refusedBy);
    expect(refusals).toEqual([...Array.from({ length: 6 }, () => undefined), 0, 0]);
    expect(redis.calls).toEqual([1]);
    await until(async () => {
      await buckets.take([alice]);
      return redis.calls.length === 2;
    }, "it asks again");
  });

  test("while the circuit is not closed, nobody asks", async () => {
    for (const state of ["open", "half_open"] as const) {
      const redis = { ...counting(away), circuitState: () => state };
      const buckets = openRateBuckets(redis, generous);
      expect(await buckets.take([alice])).toEqual({
        refusedBy: undefined,
        untilFullUs: [generous.user.intervalUs],
      });
      expect(redis.calls).toEqual([]);
    }
  });

  test("in memory, too, a check takes from both buckets or from none, and tokens can be given back", async () => {
    const redis = { ...counting(away), circuitState: () => "open" as const };
    const buckets = openRateBuckets(redis, { user: bucketSize(1000), conversation: bucketSize(1) });
    const conversation: Bucket = { owner: "conversation", id: "c" };
    const refusals = [];
    for (let count = 0; count < 3; count += 1) {
      refusals.push((await buckets.take([alice, conversation])).refusedBy);
    }
    expect(refusals).toEqual([undefined, undefined, 1]);
    // 2,000 less the two that were taken; time gives one back in a millisecond.
    const { untilFullUs } = await buckets.take([alice]);
    expect(untilFullUs[0]).toBeLessThanOrEqual(3000);
    buckets.giveBack([conversation]);
    expect((await buckets.take([conversation])).refusedBy).toBeUndefined();
    expect((await buckets.take([conversation])).refusedBy).toBe(0);
  });
});
