// A stage with a node whose code, queries and database have defects that this test put there; then some of the harm
// that is done to it, and its end.
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { processStatus } from "../../deploy/local/pid.ts";
import { topicNames } from "../../src/config.ts";
import { readTopic } from "../../src/platform/kafka.ts";
import { callsOf } from "../support/server.ts";
import { until } from "../support/until.ts";
import { changedText, type Defect } from "./defect.ts";
import { openStage, type Stage } from "./stage.ts";

setDefaultTimeout(60_000);

const defect: Defect = {
  name: "of a test",
  changes: [
    // In the main thread.
    { file: "src/edge/health.ts", from: `"/readyz",`, to: `"/healthz/changed",` },
    // In a worker.
    { file: "src/platform/kafka-event.ts", from: `"/chat4all"`, to: `"/changed"` },
    // In a query.
    { file: "sql/outbox/read-rows.sql", from: "m.message_id,", to: "m.sender_id as message_id," },
  ],
  sql: "comment on table messages is 'changed'",
};

const dataDirectory = mkdtempSync(join(tmpdir(), "chat4all-stage-"));
let stage: Stage;
let conversation: string;

beforeAll(async () => {
  stage = await openStage({ instances: 2, brokers: 1, dataDirectory, report: () => {}, defect });
  conversation = await callsOf(urlOf(0), stage.config).makeGroup(["bob"]);
});
afterAll(async () => {
  await stage?.[Symbol.asyncDispose]();
  rmSync(dataDirectory, { recursive: true, force: true });
});

describe("a defect", () => {
  test("is in the main thread, in the workers, in queries and in the database", async () => {
    expect((await fetch(`${urlOf(0)}/readyz`)).status).not.toBe(200);
    expect((await fetch(`${urlOf(0)}/healthz/changed`)).status).toBe(200);
    expect(await post(0)).toBe(202);
    const outbox = () => readTopic(stage.kafka, topicNames(stage.config).outbox);
    await until(async () => (await outbox()).length > 0, "the message is in the topic");
    const [record] = await outbox();
    expect(record?.headers).toMatchObject({ ce_source: "/changed", message_id: "alice" });
    expect(await stage.postgres.query("select obj_description('messages'::regclass) as text")).toEqual([
      { text: "changed" },
    ]);
  });

  test("is refused when the text that it changes is not there exactly once", () => {
    const file = "src/version.ts";
    const path = new URL(`../../${file}`, import.meta.url).pathname;
    for (const from of ["export", "nowhere in it"]) {
      const changes = [{ file, from, to: "" }];
      expect(() => changedText(path, { name: "stale", changes })).toThrow(/defect stale: \d+ times/);
    }
  });
});

describe("a fault is there, and then not any more:", () => {
  test("an instance is killed", async () => {
    const pid = stage.instances[0]?.pid;
    await during("instance-1 kill -9", async () => {
      expect(await post(0)).toBe("ECONNREFUSED");
      expect(await post(1)).toBe(202);
    });
    expect(stage.instances[0]?.pid).not.toBe(pid);
    expect(await post(0)).toBe(202);
  });

  test("an instance's clock is an hour ahead, at which a token is over", async () => {
    await during("instance-1 clock an hour ahead", async () => {
      expect(await post(0)).toBe(401);
      expect(await post(1)).toBe(202);
    });
    expect(await post(0)).toBe(202);
  });

  test("a worker crashes, another one loops, and both are started again", async () => {
    await during("instance-1 redis-backfill crash", async () => {});
    await during("instance-1 outbox-poller endless loop", async () => {});
    await until(() => hasLost("redis-backfill", "crashed on purpose"), "the one that crashed was found");
    await until(() => hasLost("outbox-poller", "worker_silent"), "the one that loops was found");
    await until(async () => (await dependenciesOf(0))["outbox-poller"] === "up", "it works again");
  });

  test("one instance's way to Postgres is cut", async () => {
    await during("instance-2 to postgres cut", async () => {
      expect(await post(1)).toBe(503);
      expect(await post(0)).toBe(202);
    });
    await until(async () => (await post(1)) === 202, "it takes messages");
  });

  test("Redis is emptied, and comes back empty", async () => {
    await during("redis emptied", async () => {});
    await during("redis kill -9", async () => expect(await post(0)).toBe(202));
    expect(await post(0)).toBe(202);
  });

  test("Postgres ends the connections of the instances", async () => {
    await during("postgres connections ended", async () => {});
    await until(async () => (await post(0)) === 202 && (await post(1)) === 202, "they take messages");
  });
});

test("heals all that is there at once", async () => {
  const names = [
    "instance-1 kill -9",
    "instance-2 pause",
    "redis pause",
    "way to kafka black hole",
    "postgres restart",
  ];
  await Promise.all(names.map((name) => fault(name).begin()));
  await stage.healAll();
  await until(async () => (await post(0)) === 202 && (await post(1)) === 202, "both take messages");
  expect(stage.unexpectedExits()).toEqual([]);
});

test("starts an instance again that ended by itself, and tells of it", async () => {
  const [, instance] = stage.instances;
  const pid = instance?.pid ?? 0;
  process.kill(pid, "SIGKILL");
  await until(() => (instance?.pid ?? 0) !== pid && instance?.pid !== 0, "it has another process");
  await stage.healAll();
  expect(await post(1)).toBe(202);
  expect(stage.unexpectedExits()).toMatchObject([{ instance: "instance-2" }]);
});

test("leaves nothing behind at its end", async () => {
  const pids = pidsIn(dataDirectory);
  expect(pids).toHaveLength(5);
  await stage[Symbol.asyncDispose]();
  expect(pids.filter((pid) => processStatus(pid) !== undefined)).toEqual([]);
  expect(pidsIn(dataDirectory)).toEqual([]);
  if (existsSync("/proc/mounts")) expect(readFileSync("/proc/mounts", "utf8")).not.toContain(dataDirectory);
});

async function during(name: string, check: () => Promise<void>): Promise<void> {
  const kind = fault(name);
  await kind.begin();
  try {
    await check();
  } finally {
    await kind.end();
  }
}

function fault(name: string) {
  const found = stage.faults.find((kind) => kind.name === name);
  if (found === undefined) throw new Error(`no fault is called ${name}`);
  return found;
}

function urlOf(index: number): string {
  return stage.instances[index]?.url ?? "";
}

/** The answer's status, or why there is none. */
async function post(index: number): Promise<number | string> {
  return await callsOf(urlOf(index), stage.config)
    .post(conversation, "hello")
    .then(
      ({ status }) => status,
      (error: Error & { code?: string }) => error.code ?? error.message,
    );
}

/** Whether an instance has said that it lost this worker for this reason. */
function hasLost(worker: string, reason: string): boolean {
  const log = new Bun.Glob("instance-1/*.log").scanSync({ cwd: dataDirectory, absolute: true });
  const lines = [...log].flatMap((file) => readFileSync(file, "utf8").split("\n"));
  return lines.some((line) => line.includes("worker lost") && line.includes(worker) && line.includes(reason));
}

async function dependenciesOf(index: number): Promise<Record<string, string>> {
  const answer = await fetch(`${urlOf(index)}/healthz/changed`);
  return ((await answer.json()) as { dependencies: Record<string, string> }).dependencies;
}

function pidsIn(directory: string): number[] {
  const files = [...new Bun.Glob("*/*.pid").scanSync({ cwd: directory, absolute: true })];
  return files.map((file) => (JSON.parse(readFileSync(file, "utf8")) as { pid: number }).pid);
}
