// Making, reading and listing conversations: a test per line of the contract.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { startDocumentedServer } from "../support/documented-server.ts";
import { expectProblem } from "../support/problems.ts";
import type { TestServer } from "../support/server.ts";
import { expectNothingStored } from "../support/stored-rows.ts";

let server: TestServer;
beforeAll(async () => {
  server = await startDocumentedServer();
});
afterAll(async () => await server?.[Symbol.asyncDispose]());

const create = (body: unknown, as = "alice") => server.call("POST", "/v1/conversations", body, { as });
// First members join within a moment, in no order that anybody promised.
const byName = (members: { user_id: string; role: string }[]) =>
  members.toSorted((left, right) => left.user_id.localeCompare(right.user_id));
const newUser = () => `user-${crypto.randomUUID()}`;
const time = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);

describe("POST /v1/conversations", () => {
  test("answers 201 with the group, its caller as owner and nothing numbered yet", async () => {
    const metadata = { topic: "lunch", nested: { list: [1, null, "x"] } };
    const made = await create({
      kind: "group",
      members: ["bob", "carol", "bob"],
      channels: ["support"],
      metadata,
    });
    expect(made.status).toBe(201);
    expect({ ...made.body, members: byName(made.body.members) }).toEqual({
      id: expect.any(String),
      kind: "group",
      members: [
        { user_id: "alice", role: "owner" },
        { user_id: "bob", role: "member" },
        { user_id: "carol", role: "member" },
      ],
      channels: ["support"],
      metadata,
      last_sequence_number: 0,
      created_by: "alice",
      created_at: time,
    });
    const history = await server.call("GET", `/v1/conversations/${made.body.id}/messages`);
    expect(history.body).toEqual({ items: [], has_more: false });
  });

  test("leaves metadata out where none was given, and takes a group of its caller alone", async () => {
    const made = await create({ kind: "group", members: [] });
    expect(made.status).toBe(201);
    expect(made.body.members).toEqual([{ user_id: "alice", role: "owner" }]);
    expect(made.body).not.toHaveProperty("metadata");
  });

  test("makes a direct conversation of two once, whoever of them asks", async () => {
    const [one, other] = [newUser(), newUser()];
    const first = await create({ kind: "direct", members: [other] }, one);
    expect(first.status).toBe(201);
    const again = await create({ kind: "direct", members: [one, other] }, other);
    expect(again.status).toBe(200);
    expect(again.body).toEqual(first.body);
  });

  test("makes a direct conversation once, also for 20 calls at the same time", async () => {
    const [one, other] = [newUser(), newUser()];
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, index) =>
        index % 2 === 0
          ? create({ kind: "direct", members: [other] }, one)
          : create({ kind: "direct", members: [one] }, other),
      ),
    );
    expect(new Set(answers.map(({ body }) => body.id)).size).toBe(1);
    expect(answers.filter(({ status }) => status === 201)).toHaveLength(1);
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(19);
  });

  test.each([
    ["an unknown kind", { kind: "crowd", members: [] }, ["/kind"]],
    ["no members", { kind: "group" }, ["/members"]],
    ["an empty user id", { kind: "group", members: [""] }, ["/members/0"]],
    ["a user id of 129 characters", { kind: "group", members: ["x".repeat(129)] }, ["/members/0"]],
    ["a channel that is not configured", { kind: "group", members: [], channels: ["nope"] }, ["/channels/0"]],
    [
      "a channel that no channel could be",
      { kind: "group", members: [], channels: ["No!"] },
      ["/channels/0"],
    ],
    ["metadata that is no object", { kind: "group", members: [], metadata: "x" }, ["/metadata"]],
    ["a direct conversation of three", { kind: "direct", members: ["bob", "carol"] }, ["/members"]],
    ["a direct conversation with oneself", { kind: "direct", members: ["alice"] }, ["/members"]],
    [
      "more than 1,000 members",
      { kind: "group", members: Array.from({ length: 1001 }, (_, i) => `${i}`) },
      ["/members"],
    ],
    ["an unknown field", { kind: "group", members: [], colour: "red" }, ["/colour"]],
  ])("refuses %s and stores nothing", async (_what, body, paths) => {
    const answer = await expectNothingStored(server.postgres, () => create(body));
    expectProblem(
      answer,
      400,
      answer.body.code === "unknown_channel" ? "unknown_channel" : "invalid_request",
      paths,
    );
  });
});

describe("GET /v1/conversations/{id}", () => {
  test("answers a member what POST answered, also for an id in upper case", async () => {
    const made = await create({ kind: "group", members: ["bob"] });
    for (const id of [made.body.id, made.body.id.toUpperCase()]) {
      const found = await server.call("GET", `/v1/conversations/${id}`, undefined, { as: "bob" });
      expect(found.status).toBe(200);
      expect(found.body).toEqual(made.body);
    }
  });

  test("answers 404 for an id that nobody made, 400 for what is no UUID, 403 to who is not a member", async () => {
    const id = await server.makeGroup(["bob"]);
    expectProblem(
      await server.call("GET", `/v1/conversations/${crypto.randomUUID()}`),
      404,
      "conversation_not_found",
    );
    expectProblem(await server.call("GET", "/v1/conversations/123"), 400, "invalid_request", [
      "/conversation_id",
    ]);
    const mallory = await server.call("GET", `/v1/conversations/${id}`, undefined, { as: "mallory" });
    expectProblem(mallory, 403, "not_a_member");
  });
});

describe("GET /v1/conversations", () => {
  test("lists the latest activity first, with last message, unread count and cursors", async () => {
    const [reader, writer] = [newUser(), newUser()];
    const ids: string[] = [];
    for (let made = 0; made < 3; made += 1) {
      ids.push((await create({ kind: "group", members: [reader] }, writer)).body.id);
    }
    const [quiet, busy] = ids as [string, string, string];
    for (const text of ["one", "two", "three"]) await server.post(busy, text, { as: writer });
    await server.post(busy, "mine", { as: reader });
    await server.call(
      "POST",
      `/v1/conversations/${busy}/receipts`,
      { delivered: 2, read: 1 },
      { as: reader },
    );
    await server.call("DELETE", `/v1/conversations/${busy}/messages/2`, undefined, { as: writer });

    const { body } = await server.call("GET", "/v1/conversations", undefined, { as: reader });
    expect(body.items.map(({ id }: { id: string }) => id)).toEqual([busy, ids[2], quiet]);
    expect(body.next_cursor).toBeNull();
    expect({ ...body.items[0], members: byName(body.items[0].members) }).toEqual({
      id: busy,
      kind: "group",
      members: byName([
        { user_id: writer, role: "owner" },
        { user_id: reader, role: "member" },
      ]),
      member_count: 2,
      channels: [],
      last_sequence_number: 5,
      last_event_at: time,
      last_message: {
        event: "message.created",
        conversation_id: busy,
        sequence_number: 4,
        message_id: expect.any(String),
        sender_id: reader,
        payload: { type: "text", text: "mine" },
        created_at: time,
      },
      // Of one to four: one was read, two deleted, four is the reader's own.
      unread_count: 1,
      cursors: { delivered: 2, read: 1 },
    });
    expect(body.items[2]).toMatchObject({ last_message: null, unread_count: 0, last_sequence_number: 0 });
  });

  test("pages over 120 conversations with each one once, while others get new messages", async () => {
    const user = newUser();
    const made: string[] = [];
    for (let index = 0; index < 120; index += 1) {
      made.push((await create({ kind: "group", members: [] }, user)).body.id);
    }
    const seen: string[] = [];
    let cursor: string | null = null;
    const sizes: number[] = [];
    do {
      const query: string = cursor === null ? "" : `?cursor=${cursor}`;
      const { body } = await server.call("GET", `/v1/conversations${query}`, undefined, { as: user });
      seen.push(...body.items.map(({ id }: { id: string }) => id));
      sizes.push(body.items.length);
      cursor = body.next_cursor;
      // What was shown already moves to the front: that shifts no page.
      await server.post(seen[0] as string, "again", { as: user });
    } while (cursor !== null);
    expect(sizes).toEqual([50, 50, 20]);
    expect(seen).toEqual(made.toReversed());
  });

  test("takes limits from 1 to 100, and no cursor that it never gave", async () => {
    const user = newUser();
    const list = (query: string) => server.call("GET", `/v1/conversations?${query}`, undefined, { as: user });
    for (const limit of ["1", "100"]) expect((await list(`limit=${limit}`)).status).toBe(200);
    for (const limit of ["0", "101", "-1", "1.5", "1e2", "0x10", "", "%2010", "99999999999999999999"]) {
      expectProblem(await list(`limit=${limit}`), 400, "invalid_request", ["/limit"]);
    }
    const base64 = (text: string) => Buffer.from(text).toString("base64url");
    const id = crypto.randomUUID();
    for (const cursor of [
      "",
      "x",
      base64("x"),
      base64(`0 ${id} `),
      base64(`-1 ${id}`),
      base64(`1e3 ${id}`),
      base64(`${"9".repeat(15)} ${id}`),
    ]) {
      expectProblem(await list(`cursor=${cursor}`), 400, "invalid_request", ["/cursor"]);
    }
    expect((await list(`cursor=${base64(`${"9".repeat(14)} ${id}`)}`)).body.items).toEqual([]);
    expectProblem(await list("limit=1&limit=2"), 400, "invalid_request", ["/limit"]);
    expectProblem(await list("offset=2"), 400, "invalid_request", ["/offset"]);
  });
});
