// The pool behind a proxy that cuts its connections, or swallows what is said on them.
import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { isConnectionFailure, openPostgres, type Postgres } from "../../src/platform/postgres.ts";
import { dropAnswers, type FaultProxy, once, passAll, startFaultProxy } from "../support/fault-proxy.ts";

setDefaultTimeout(30_000);

const databaseUrl = String(process.env["TEST_DATABASE_URL"]);
let proxy: FaultProxy;
let proxiedUrl: string;
let postgres: Postgres;

function open(url: string, connectionsMax: number, applicationName = "chat4all test"): Postgres {
  return openPostgres({
    url,
    connectionsMax,
    applicationName,
    connectTimeoutSeconds: 1,
    statementTimeoutMs: 500,
  });
}

beforeEach(async () => {
  const url = new URL(databaseUrl);
  proxy = await startFaultProxy({ target: Number(url.port) });
  url.port = String(proxy.port);
  proxiedUrl = url.href;
  postgres = open(proxiedUrl, 3);
});

afterEach(async () => {
  await postgres.close();
  await proxy.stop();
});

for (const how of ["reset", "close"] as const) {
  test(`ends every statement when connections are ended by ${how}, also those asked at once again`, async () => {
    let isOver = false;
    const cutting = setInterval(() => proxy.endConnections(how), 40);
    const callers = Array.from({ length: 8 }, async () => {
      while (!isOver) {
        await postgres.query("select pg_sleep(0.005)").catch((error) => {
          expect(isConnectionFailure(error)).toBe(true);
        });
      }
    });
    await Bun.sleep(2_000);
    clearInterval(cutting);
    isOver = true;
    const startedAtMs = performance.now();
    await Promise.all(callers);
    expect(performance.now() - startedAtMs).toBeLessThan(1_500);
  });
}

test("gives up a connection on which nothing comes back, and asks on another", async () => {
  await postgres.query("select 1");
  proxy.fault = dropAnswers;
  const failure = await postgres.query("select 2").catch((error) => error);
  expect(failure).toMatchObject({ code: "postgres_silent" });
  expect(isConnectionFailure(failure)).toBe(true);
  proxy.fault = passAll;
  expect([...(await postgres.query("select 3 as answer"))]).toEqual([{ answer: 3 }]);
});

test("asks on new connections when all are ended while a statement is on its way to one", async () => {
  const applicationName = `ended ${crypto.randomUUID()}`;
  await using ended = open(databaseUrl, 2, applicationName);
  await using other = open(databaseUrl, 1);
  const untilAnswered = async (text: string): Promise<unknown> => {
    try {
      return await ended.query(text);
    } catch (error) {
      // That it was lost with its connection; not what an earlier one ended with, nor that no new one was to be had.
      expect((error as { code?: string }).code).toBeOneOf(["CONNECTION_CLOSED", "ECONNRESET", "EPIPE"]);
      return untilAnswered(text);
    }
  };
  const askTwo = () =>
    Promise.all([untilAnswered("select 1 as answer"), untilAnswered("select 2 as answer")]);
  await Promise.all([ended.query("select pg_sleep(0.1)"), ended.query("select pg_sleep(0.1)")]);
  await other.query("select 1");
  const afterFailure = ended.query("select pg_sleep(0.4)").catch(askTwo);
  const ending = other.query(
    "select pg_terminate_backend(pid) from pg_stat_activity where application_name = $1",
    [applicationName],
  );
  // Once it is asked, this thread stands still; then it learns of the answer and of both ends in one turn.
  await Bun.sleep(1);
  Bun.sleepSync(200);
  const answers = await Promise.all([afterFailure, ending.then(askTwo)]);
  expect(answers.flat(2)).toEqual([{ answer: 1 }, { answer: 2 }, { answer: 1 }, { answer: 2 }]);
});

test("answers whole rows after a connection that ended in the middle of an answer", async () => {
  await using single = open(proxiedUrl, 1);
  await single.query("select 1");
  const { fault, struck } = once("answer", "chunk", "pass");
  proxy.fault = fault;
  const cut = single
    .query("select repeat('x', 9000), pg_sleep(0.02) from generate_series(1, 20)")
    .catch((error) => error);
  await struck;
  await Bun.sleep(20);
  proxy.endConnections("close");
  expect(isConnectionFailure(await cut)).toBe(true);
  expect([...(await single.query("select 2 as answer"))]).toEqual([{ answer: 2 }]);
});

test("takes and gives arrays as they are", async () => {
  const texts = ["", "plain", "NULL", null, `"quoted", {braced} and \\slashed`, "two\nlines", "é"];
  const numbers = [0, -7, Number.MAX_SAFE_INTEGER, null];
  const id = crypto.randomUUID();
  const rows = await postgres.query(
    "select $1::text[] as texts, $2::bigint[] as numbers, $3::uuid[] as ids, $4::smallint[] as small",
    [texts, numbers, [id], []],
  );
  expect([...rows]).toEqual([{ texts, numbers, ids: [id], small: [] }]);
});
