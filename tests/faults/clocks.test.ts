// Clocks that jump by an hour: leases go by the database's clock, all else that a node measures by a monotonic one.
import { afterAll, afterEach, beforeAll, expect, setDefaultTimeout, setSystemTime, test } from "bun:test";
import claimShardsSql from "../../sql/outbox/claim-shards.sql" with { type: "text" };
import { prepareShards } from "../../src/outbox/shards.ts";
import type { Postgres } from "../../src/platform/postgres.ts";
import { connect, makeDatabase, type TestDatabase } from "../support/database.ts";
import { startServer } from "../support/server.ts";
import { openSocket } from "../support/socket.ts";
import { untilRouted } from "../support/walk.ts";

setDefaultTimeout(60_000);

const hourMs = 3_600_000;
const leaseMs = 4_000;
const [living, dead] = [crypto.randomUUID(), crypto.randomUUID()];

let database: TestDatabase;
let postgres: Postgres;
beforeAll(async () => {
  database = await makeDatabase();
  postgres = connect(database.url);
  await prepareShards(postgres, 4);
});
afterEach(() => void setSystemTime());
afterAll(async () => {
  await postgres?.close();
  await database?.drop();
});

test("a dead poller's shards are another's after the database's clock jumped back", async () => {
  expect(await claim(dead)).toHaveLength(4);
  await shiftLeases("1 hour");
  const owned = await claim(living);
  expect(owned.map(({ shard }) => shard)).toEqual([0, 1, 2, 3]);
  expect(owned.every(({ epoch }) => epoch === 2)).toBe(true);
  expect(await postgres.query("select id from pollers")).toHaveLength(1);
});

test("a dead poller's shards are another's after the database's clock jumped on", async () => {
  await claim(dead);
  await shiftLeases("-1 hour");
  expect(await claim(living)).toHaveLength(4);
});

test("two living pollers keep their shares, whichever is asked first", async () => {
  await postgres.query("update pollers set expires_at = '-infinity'");
  await postgres.query("update shard_leases set owner = null, expires_at = '-infinity'");
  for (let round = 0; round < 3; round += 1) for (const id of [living, dead]) await claim(id);
  const before = await Promise.all([claim(living), claim(dead)]);
  expect(before.map((owned) => owned.length)).toEqual([2, 2]);
  expect(await Promise.all([claim(living), claim(dead)])).toEqual(before);
});

for (const [direction, jumpMs] of [
  ["on", hourMs],
  ["back", -hourMs],
] as const) {
  test(`a node works on when its clock jumps ${direction}`, async () => {
    await using server = await startServer();
    const life = { expiresInSeconds: 10 * 3_600 };
    const id = await server.makeGroup(["bob"]);
    const [alice, bob] = await Promise.all([server.token("alice", life), server.token("bob", life)]);
    using ear = openSocket(server.url, bob);
    using mouth = openSocket(server.url, alice);
    for (const socket of [ear, mouth]) {
      await socket.next({ type: "hello" });
      await socket.ask({ type: "subscribe", conversation_id: id });
    }
    expect((await server.post(id, "before", { token: alice })).status).toBe(202);

    setSystemTime(new Date(Date.now() + jumpMs));
    const posted = await server.post(id, "after", { token: alice });
    expect(posted).toMatchObject({ status: 202, body: { sequence_number: 2 } });
    // The database's clock, not the node's.
    expect(Math.abs(Date.parse(posted.body.created_at) + jumpMs - Date.now())).toBeLessThan(60_000);
    await ear.next({ type: "message", sequence_number: 2 });
    mouth.send({ type: "typing", conversation_id: id });
    await ear.next({ type: "typing", user_id: "alice" });
    await untilRouted(server.postgres);
    expect((await fetch(`${server.url}/readyz`)).status).toBe(200);
  });
}

function claim(pollerId: string) {
  return postgres.query<{ shard: number; epoch: number }>(claimShardsSql, [pollerId, leaseMs]);
}

/** As if the database's clock had jumped the other way. */
async function shiftLeases(by: string) {
  for (const table of ["shard_leases", "pollers"])
    await postgres.query(`update ${table} set expires_at = expires_at + $1::interval`, [by]);
}
