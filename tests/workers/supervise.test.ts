// The supervisor with worker threads that misbehave.
import { afterEach, expect, test } from "bun:test";
import { readConfig } from "../../src/config.ts";
import { type Log, openLog } from "../../src/platform/log.ts";
import { openWatchdogs } from "../../src/platform/watchdog.ts";
import { startWorkers, superviseLimits, type Workers } from "../../src/supervise.ts";
import type { SuperviseLimits } from "../../src/supervised-worker.ts";
import { until } from "../support/until.ts";

const config = readConfig({
  DATABASE_URL: "postgres://127.0.0.1:1/none",
  REDIS_URL: "redis://127.0.0.1:1",
  ROLES: "backfill",
  LOG_LEVEL: "fatal",
});
const quick: SuperviseLimits = { ...superviseLimits, restartPauseMinMs: 5, restartPauseMaxMs: 40 };

interface Loss {
  code: string;
  pauseMs: number;
}

const losses: Loss[] = [];
const givenUp: string[] = [];
let workers: Workers | undefined;
afterEach(async () => {
  await workers?.stop(100);
  losses.length = 0;
  givenUp.length = 0;
});

async function start(behaviour: string, limits: SuperviseLimits = quick): Promise<Workers> {
  workers = await startWorkers({
    config,
    instanceId: behaviour,
    log: lossLog(),
    onGiveUp: (name) => givenUp.push(name),
    limits,
    programOf: () => new URL("./program.ts", import.meta.url),
  });
  return workers;
}

/** A log that notes only the losses. */
function lossLog(): Log {
  const log = openLog("test", "silent");
  log.child = () => ({ ...log, info() {}, fatal() {}, error: (loss: Loss) => losses.push(loss) }) as never;
  return log;
}

test("waits for a worker to be ready, and answers its metrics", async () => {
  const { states, collectMetrics } = await start("counting");
  expect(states()).toEqual({ "redis-backfill": "up" });
  const [metrics] = await collectMetrics();
  expect(metrics).toMatchObject([{ name: "test_total", values: [{ value: 7 }] }]);
});

test("shows a worker whose outside system is away as degraded", async () => {
  expect((await start("degraded")).states()).toEqual({ "redis-backfill": "degraded" });
});

test("gives a worker up that fails more than ten times, with longer and longer pauses", async () => {
  const { states, restarts } = await start("failing");
  expect(givenUp).toEqual(["redis-backfill"]);
  expect(states()).toEqual({ "redis-backfill": "down" });
  expect(restarts()).toEqual({ "redis-backfill": 10 });
  expect(losses.map(({ pauseMs }) => pauseMs)).toEqual([5, 10, 20, 40, 40, 40, 40, 40, 40, 40]);
  expect(new Set(losses.map(({ code }) => code))).toEqual(new Set(["shards_mismatch"]));
});

test("pauses 100 ms before the first restart and 5 s at most", () => {
  expect(superviseLimits).toMatchObject({ restartPauseMinMs: 100, restartPauseMaxMs: 5_000 });
});

for (const [behaviour, code] of [
  ["rejecting", "worker_crashed"],
  ["exiting", "worker_exited"],
  ["hanging", "worker_silent"],
  ["spinning", "worker_silent"],
] as const) {
  test(`starts a worker again that is ${behaviour}`, async () => {
    const { restarts } = await start(behaviour, { ...quick, silenceMaxMs: 300 });
    await until(() => restarts()["redis-backfill"] === 2, "the worker was started again twice", 10_000);
    expect(losses.slice(0, 2).map((loss) => loss.code)).toEqual([code, code]);
    expect(givenUp).toEqual([]);
  });
}

test("ends a worker that does not stop, by the deadline", async () => {
  const { stop, states } = await start("stubborn");
  const startedAtMs = performance.now();
  await stop(200);
  expect(performance.now() - startedAtMs).toBeWithin(190, 500);
  expect(states()).toEqual({ "redis-backfill": "down" });
  expect(losses).toEqual([]);
});

test("stops a willing worker at once, and does not start it again", async () => {
  const { stop, restarts } = await start("steady");
  const startedAtMs = performance.now();
  await stop(5_000);
  expect(performance.now() - startedAtMs).toBeLessThan(1_000);
  await Bun.sleep(50);
  expect(restarts()).toEqual({ "redis-backfill": 0 });
});

test("starts while Postgres and Kafka are away, and stops as well", async () => {
  const away = { ...config, ROLES: ["outbox" as const, "router" as const], KAFKA_BROKERS: ["127.0.0.1:1"] };
  const log = openLog("test", "silent");
  workers = await startWorkers({ config: away, instanceId: crypto.randomUUID(), log, onGiveUp: () => {} });
  const { states, stop } = workers;
  await until(
    () => Object.values(states()).every((state) => state === "degraded"),
    "each worker is degraded",
  );
  expect(states()).toEqual({ "outbox-poller": "degraded", "message-router": "degraded" });
  const startedAtMs = performance.now();
  await stop(5_000);
  expect(performance.now() - startedAtMs).toBeLessThan(4_000);
});

test("counts a loop as alive while it beats or rightly waits, and until it ends", async () => {
  let nowMs = 0;
  const watchdogs = openWatchdogs(() => nowMs);
  const loop = watchdogs.watch(100);
  nowMs = 101;
  expect(watchdogs.areQuiet()).toBe(false);
  loop.beat();
  expect(watchdogs.areQuiet()).toBe(true);

  const kafka = Promise.withResolvers<string>();
  const waiting = loop.wait(kafka.promise);
  nowMs = 1_000_000;
  expect(watchdogs.areQuiet()).toBe(true);
  kafka.resolve("back");
  expect(await waiting).toBe("back");
  nowMs += 101;
  expect(watchdogs.areQuiet()).toBe(false);
  loop.end();
  expect(watchdogs.areQuiet()).toBe(true);
});
