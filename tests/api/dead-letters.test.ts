// The calls about dead letters: who may, what they refuse, and how lists are paged.
import { afterAll, beforeAll, expect, test } from "bun:test";
import listSql from "../../sql/admin/list-dead-letters.sql" with { type: "text" };
import { type DocumentedServer, startDocumentedServer } from "../support/documented-server.ts";
import { expectNothingStored } from "../support/stored-rows.ts";

let server: DocumentedServer;
let adminToken: string;
let conversationId: string;
const ids: string[] = [];

beforeAll(async () => {
  server = await startDocumentedServer();
  adminToken = await server.token("operator", { scope: "admin" });
  conversationId = await server.makeGroup(["bob"]);
  for (const number of [1, 2, 3, 4, 5]) {
    await server.post(conversationId, `text ${number}`);
    const [row] = await server.postgres.query<{ id: string }>(
      `insert into dead_letters (stage, conversation_id, sequence_number, reason, tries, record, parked_at, replayed_at)
       values ('outbox', $1, $2::bigint, 'record_rejected', 5, '{"value": "secret"}',
         now() + $2::bigint * interval '1 second', case when $2::bigint = 3 then now() end) returning id`,
      [conversationId, number],
    );
    ids.push(String(row?.id));
  }
  await server.postgres.query(`insert into dead_letters (stage, reason, tries, record, parked_at)
    values ('router', 'undecodable_record', 5, '{}', now() - interval '1 day')`);
});
afterAll(async () => await server?.[Symbol.asyncDispose]());

const asAdmin = (method: string, path: string, body?: unknown) =>
  server.call(method, `/v1/admin/dead-letters${path}`, body, { token: adminToken });

async function numbers(query: string): Promise<(number | null)[]> {
  const { status, body } = await asAdmin("GET", query);
  expect(status).toBe(200);
  return body.items.map((item: { sequence_number: number | null }) => item.sequence_number);
}

test("lists what is open, newest first, or what was replayed, or all, without what was said", async () => {
  expect(await numbers("")).toEqual([5, 4, 2, 1, null]);
  expect(await numbers("?state=replayed")).toEqual([3]);
  expect(await numbers("?state=all")).toEqual([5, 4, 3, 2, 1, null]);
  expect(await numbers(`?conversation_id=${conversationId}`)).toEqual([5, 4, 2, 1]);
  expect(await numbers(`?conversation_id=${crypto.randomUUID()}&state=all`)).toEqual([]);
  expect(JSON.stringify((await asAdmin("GET", "?state=all")).body)).not.toContain("secret");
});

test.each(["?state=all", `?state=open`])("pages through %s without a gap or repeat", async (query) => {
  const found: (number | null)[] = [];
  for (let cursor: string | null = ""; cursor !== null; ) {
    const { body } = await asAdmin("GET", `${query}&limit=2${cursor && `&cursor=${cursor}`}`);
    found.push(...body.items.map((item: { sequence_number: number | null }) => item.sequence_number));
    cursor = body.next_cursor;
  }
  expect(found).toEqual(await numbers(query));
});

test("finds lists by index", async () => {
  const plan = await server.postgres.query<Record<string, string>>(
    `explain ${listSql.replaceAll("$1", "true").replaceAll("$2", "true").replaceAll("$3", "now()").replaceAll("$4", "uuidv7()").replaceAll("$5", "10")}`,
  );
  const text = plan.map((row) => Object.values(row).join("")).join("\n");
  expect(text).toContain("using dead_letters_open");
  expect(text).toContain("using dead_letters_replayed");
  expect(text).not.toContain("Seq Scan");
});

test.each([
  ["GET", ""],
  ["POST", "/replay"],
  ["POST", "/00000000-0000-4000-8000-000000000000/replay"],
])("%s %s is for clients with the scope admin only", async (method, path) => {
  const url = `/v1/admin/dead-letters${path}`;
  expect((await server.call(method, url, undefined, { as: null })).status).toBe(401);
  const forbidden = await expectNothingStored(server.postgres, () => server.call(method, url));
  expect(forbidden).toMatchObject({ status: 403, body: { code: "insufficient_scope" } });
});

test.each([
  ["GET", "?state=closed", undefined],
  ["GET", "?limit=0", undefined],
  ["GET", "?limit=501", undefined],
  ["GET", "?cursor=bm90aGluZw", undefined],
  ["GET", "?conversation_id=x", undefined],
  ["POST", "/x/replay", undefined],
  ["POST", "/replay", { conversation_id: "x" }],
  ["POST", "/replay", { all: true }],
])("%s %s %j is refused", async (method, path, body) => {
  const answer = await expectNothingStored(server.postgres, () => asAdmin(method, path, body));
  expect(answer.status).toBe(400);
});

test("refuses to replay what is not there, was replayed, or belongs to no message", async () => {
  const [foreign] = await server.postgres.query<{ id: string }>(
    "select id from dead_letters where conversation_id is null",
  );
  const cases: [string, number, string][] = [
    [crypto.randomUUID(), 404, "dead_letter_not_found"],
    [String(ids[2]), 409, "already_replayed"],
    [String(foreign?.id), 409, "not_replayable"],
  ];
  for (const [id, status, code] of cases) {
    const answer = await expectNothingStored(server.postgres, () => asAdmin("POST", `/${id}/replay`));
    expect(answer).toMatchObject({ status, body: { code } });
  }
});

test("puts a letter into the outbox once, and the others of its conversation in order", async () => {
  const replays = async () => {
    const rows = await server.postgres.query<{ sequence_numbers: number[] }>(
      "select sequence_numbers from outbox where dead_letter_id is not null order by id",
    );
    return rows.flatMap((row) => row.sequence_numbers);
  };
  for (const _ of [1, 2]) expect((await asAdmin("POST", `/${ids[3]}/replay`)).status).toBe(202);
  expect(await replays()).toEqual([4]);
  const first = await asAdmin("POST", "/replay", { conversation_id: conversationId });
  expect(first).toMatchObject({ status: 202, body: { accepted: 3, has_more: false } });
  expect(await replays()).toEqual([4, 1, 2, 5]);
  expect((await asAdmin("POST", "/replay")).body).toEqual({ accepted: 0, has_more: false });
  const { body } = await asAdmin("GET", "?limit=1");
  expect(body.items[0].replay_requested_at).toBeString();
});
