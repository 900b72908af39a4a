// Reading: pages of the history, one event with its state, and the cursors that receipts move.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { startDocumentedServer } from "../support/documented-server.ts";
import { expectProblem } from "../support/problems.ts";
import type { TestServer } from "../support/server.ts";
import { expectNothingStored } from "../support/stored-rows.ts";

const total = 520;
let server: TestServer;
let long: string;
beforeAll(async () => {
  server = await startDocumentedServer();
  long = await server.makeGroup(["bob"]);
  const messages = Array.from({ length: total }, (_, index) => ({
    message_id: crypto.randomUUID(),
    conversation_id: long,
    payload: { type: "text", text: `${index + 1}` },
  }));
  for (const part of [messages.slice(0, 400), messages.slice(400)]) {
    await server.call("POST", "/v1/messages/batch", { messages: part });
  }
});
afterAll(async () => await server?.[Symbol.asyncDispose]());

const upTo = (last: number, first = 1) =>
  Array.from({ length: last - first + 1 }, (_, index) => first + index);

describe("GET /v1/conversations/{id}/messages", () => {
  const read = async (query: string) => {
    const { status, body } = await server.call("GET", `/v1/conversations/${long}/messages${query}`);
    expect(status).toBe(200);
    expect(Object.keys(body)).toEqual(["items", "has_more"]);
    return {
      numbers: body.items.map((item: { sequence_number: number }) => item.sequence_number),
      more: body.has_more,
    };
  };

  test.each([
    ["the newest 50, descending, without a query", "", upTo(total, total - 49).toReversed(), true],
    ["the newest few", "?limit=3", [520, 519, 518], true],
    ["more of the newest than are kept at hand", "?limit=51", upTo(total, total - 50).toReversed(), true],
    ["ascending from the number after `after`", "?after=10&limit=3", [11, 12, 13], true],
    ["from the first number", "?after=0&limit=2", [1, 2], true],
    ["500 at most", "?after=0&limit=500", upTo(500), true],
    ["the last page, which says that there is no more", "?after=518", [519, 520], false],
    ["a page that ends at the last number, which says so too", "?after=517&limit=3", [518, 519, 520], false],
    ["nothing after the last number", "?after=520", [], false],
    ["nothing far beyond it", "?after=9007199254740991", [], false],
    ["descending from the number before `before`", "?before=10&limit=3", [9, 8, 7], true],
    ["the first page backwards", "?before=4&limit=3", [3, 2, 1], false],
    ["nothing before the first number", "?before=1", [], false],
    ["the newest, before more than there are", "?before=9007199254740991&limit=1", [520], true],
  ])("shows %s", async (_what, query, numbers, more) => {
    expect(await read(query)).toEqual({ numbers, more });
  });

  test("says whether there is more for the newest page too", async () => {
    const id = await server.makeGroup([]);
    for (const text of ["one", "two"]) await server.post(id, text);
    const more = async (limit: number) =>
      (await server.call("GET", `/v1/conversations/${id}/messages?limit=${limit}`)).body.has_more;
    expect([await more(1), await more(2), await more(3)]).toEqual([true, false, false]);
  });

  test("shows a message at once after it was accepted, also when the newest page was read before", async () => {
    const id = await server.makeGroup([]);
    for (let number = 1; number <= 5; number += 1) {
      await server.post(id, `${number}`);
      const { body } = await server.call("GET", `/v1/conversations/${id}/messages?limit=1`);
      expect(body.items[0]).toMatchObject({ sequence_number: number, payload: { text: `${number}` } });
    }
    await server.call("PATCH", `/v1/conversations/${id}/messages/5`, {
      payload: { type: "text", text: "new" },
    });
    const { body } = await server.call("GET", `/v1/conversations/${id}/messages?limit=2`);
    expect(body.items.map((item: { payload: { text: string } }) => item.payload.text)).toEqual([
      "new",
      "new",
    ]);
  });

  test.each([
    ["after=-1", "/after"],
    ["after=1.5", "/after"],
    ["after=1e2", "/after"],
    ["after=9007199254740992", "/after"],
    ["after=", "/after"],
    ["after=%2B1", "/after"],
    ["before=0", "/before"],
    ["before=x", "/before"],
    ["limit=0", "/limit"],
    ["limit=501", "/limit"],
    ["after=1&before=3", "/before"],
    ["after=1&after=2", "/after"],
    ["sort=asc", "/sort"],
  ])("refuses ?%s with 400", async (query, path) => {
    const answer = await server.call("GET", `/v1/conversations/${long}/messages?${query}`);
    expectProblem(answer, 400, "invalid_request", [path]);
  });

  test("is for members of a conversation that is there", async () => {
    const as = (user: string, id: string) =>
      server.call("GET", `/v1/conversations/${id}/messages`, undefined, { as: user });
    expectProblem(await as("mallory", long), 403, "not_a_member");
    expectProblem(await as("alice", crypto.randomUUID()), 404, "conversation_not_found");
    expectProblem(await as("alice", "x"), 400, "invalid_request", ["/conversation_id"]);
  });
});

describe("GET /v1/conversations/{id}/messages/{sequence_number}", () => {
  const find = (id: string, number: string | number, as = "alice") =>
    server.call("GET", `/v1/conversations/${id}/messages/${number}`, undefined, { as });

  test("shows the message with its state and, per member, what was delivered and read", async () => {
    const id = await server.makeGroup(["bob", "carol"]);
    const sent = await server.post(id, "hello");
    await server.call("POST", `/v1/conversations/${id}/receipts`, { read: 1 }, { as: "bob" });
    await server.call("POST", `/v1/conversations/${id}/receipts`, { delivered: 1 }, { as: "carol" });
    const { status, body } = await find(id, 1);
    expect(status).toBe(200);
    expect(body).toEqual({
      event: "message.created",
      conversation_id: id,
      sequence_number: 1,
      message_id: sent.body.message_id,
      sender_id: "alice",
      payload: { type: "text", text: "hello" },
      created_at: sent.body.created_at,
      state: "enqueued",
      members: [
        { user_id: "alice", delivered: false, read: false },
        { user_id: "bob", delivered: true, read: true },
        { user_id: "carol", delivered: true, read: false },
      ],
    });
  });

  test("shows a member's event, too", async () => {
    const id = await server.makeGroup([]);
    await server.call("POST", `/v1/conversations/${id}/members`, { user_id: "bob" });
    expect((await find(id, 1, "bob")).body).toMatchObject({
      event: "member.added",
      payload: { user_id: "bob", role: "member" },
      state: "enqueued",
    });
  });

  test("answers 404 for what is not there, 400 for what is no number, 403 to strangers", async () => {
    expectProblem(await find(long, total + 1), 404, "message_not_found");
    expectProblem(await find(crypto.randomUUID(), 1), 404, "conversation_not_found");
    for (const number of ["0", "x", "1.0", "-1", "9007199254740992"]) {
      expectProblem(await find(long, number), 400, "invalid_request", ["/sequence_number"]);
    }
    expectProblem(await find(long, 1, "mallory"), 403, "not_a_member");
    expectProblem(await find(long, total + 1, "mallory"), 403, "not_a_member");
  });
});

describe("POST /v1/conversations/{id}/receipts", () => {
  const move = (body: unknown, as = "bob", id = long) =>
    server.call("POST", `/v1/conversations/${id}/receipts`, body, { as });

  test("answers both cursors; they never fall, and read raises delivered", async () => {
    const steps: [object, object][] = [
      [{}, { delivered: 0, read: 0 }],
      [{ delivered: 5 }, { delivered: 5, read: 0 }],
      [{ delivered: 3 }, { delivered: 5, read: 0 }],
      [{ read: 2 }, { delivered: 5, read: 2 }],
      [{ read: 8 }, { delivered: 8, read: 8 }],
      [
        { delivered: 1, read: 1 },
        { delivered: 8, read: 8 },
      ],
      [
        { delivered: 9, read: 10 },
        { delivered: 10, read: 10 },
      ],
      [{ delivered: total }, { delivered: total, read: 10 }],
      [
        { delivered: 0, read: 0 },
        { delivered: total, read: 10 },
      ],
    ];
    for (const [body, cursors] of steps) {
      const answer = await move(body);
      expect({ status: answer.status, body: answer.body }).toEqual({ status: 200, body: cursors });
    }
  });

  test("keeps the highest of many that come at once", async () => {
    const id = await server.makeGroup(["bob"]);
    for (let sent = 0; sent < 20; sent += 1) await server.post(id, "x");
    await Promise.all(
      upTo(20).map((number) => move(number % 2 ? { read: number } : { delivered: number }, "bob", id)),
    );
    expect((await move({}, "bob", id)).body).toEqual({ delivered: 20, read: 19 });
  });

  test("refuses numbers beyond the last, and what is no number, and moves nothing", async () => {
    await expectNothingStored(server.postgres, async () => {
      for (const number of [total + 1, Number.MAX_SAFE_INTEGER, -1, 1.5, "1", null]) {
        expectProblem(await move({ read: number }, "alice"), 400, "invalid_request", ["/read"]);
        expectProblem(await move({ delivered: number }, "alice"), 400, "invalid_request", ["/delivered"]);
      }
      expectProblem(await move({ delivered: 1, read: total + 1 }, "alice"), 400, "invalid_request", [
        "/read",
      ]);
      expectProblem(await move({ seen: 1 }), 400, "invalid_request", ["/seen"]);
      expectProblem(await move({ read: 1 }, "mallory"), 403, "not_a_member");
      expectProblem(await move({ read: 1 }, "bob", crypto.randomUUID()), 404, "conversation_not_found");
    });
  });
});
