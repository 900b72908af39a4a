// The pool behind a proxy that cuts its connections, or swallows what is said on them.
import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { isConnectionFailure, openPostgres, type Postgres } from "../../src/platform/postgres.ts";
import { dropAnswers, type FaultProxy, passAll, startFaultProxy } from "../support/fault-proxy.ts";

setDefaultTimeout(30_000);

let proxy: FaultProxy;
let postgres: Postgres;

beforeEach(async () => {
  const url = new URL(String(process.env["TEST_DATABASE_URL"]));
  proxy = await startFaultProxy({ target: Number(url.port) });
  url.port = String(proxy.port);
  postgres = openPostgres({
    url: url.href,
    connectionsMax: 3,
    applicationName: "chat4all test",
    connectTimeoutSeconds: 1,
    statementTimeoutMs: 500,
  });
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
