// Who belongs to a conversation: adding, removing and leaving, each a numbered event.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { startDocumentedServer } from "../support/documented-server.ts";
import { expectProblem } from "../support/problems.ts";
import type { TestServer } from "../support/server.ts";
import { expectNothingStored } from "../support/stored-rows.ts";

let server: TestServer;
beforeAll(async () => {
  server = await startDocumentedServer();
});
afterAll(async () => await server?.[Symbol.asyncDispose]());

const newUser = () => `user-${crypto.randomUUID()}`;
const add = (id: string, body: unknown, as = "alice") =>
  server.call("POST", `/v1/conversations/${id}/members`, body, { as });
const remove = (id: string, user: string, as = "alice") =>
  server.call("DELETE", `/v1/conversations/${id}/members/${encodeURIComponent(user)}`, undefined, { as });

test("an owner adds and removes, each as an event with a number", async () => {
  const id = await server.makeGroup(["bob"]);
  const added = await add(id, { user_id: "carol", role: "owner" });
  expect(added.status).toBe(201);
  expect(added.body).toEqual({ user_id: "carol", role: "owner", sequence_number: 1 });
  expect((await add(id, { user_id: "dave" })).body).toEqual({
    user_id: "dave",
    role: "member",
    sequence_number: 2,
  });
  const removed = await remove(id, "bob", "carol");
  expect({ status: removed.status, body: removed.body }).toEqual({ status: 204, body: "" });

  const { body } = await server.call("GET", `/v1/conversations/${id}/messages?after=0`);
  expect(
    body.items.map(({ event, payload }: { event: string; payload: unknown }) => ({ event, payload })),
  ).toEqual([
    { event: "member.added", payload: { user_id: "carol", role: "owner" } },
    { event: "member.added", payload: { user_id: "dave", role: "member" } },
    { event: "member.removed", payload: { user_id: "bob" } },
  ]);
  const found = await server.call("GET", `/v1/conversations/${id}`);
  expect(found.body.members.map(({ user_id }: { user_id: string }) => user_id)).toEqual([
    "alice",
    "carol",
    "dave",
  ]);
});

test("anyone may leave, under any id", async () => {
  const user = "a/b c%é😀";
  const id = await server.makeGroup([user]);
  expect((await remove(id, user, user)).status).toBe(204);
  expectProblem(await remove(id, user, user), 403, "not_a_member");
});

test("only owners add, and only owners remove others", async () => {
  const id = await server.makeGroup(["bob", "carol"]);
  await expectNothingStored(server.postgres, async () => {
    expectProblem(await add(id, { user_id: "dave" }, "bob"), 403, "not_allowed");
    expectProblem(await remove(id, "carol", "bob"), 403, "not_allowed");
    expectProblem(await add(id, { user_id: "mallory" }, "mallory"), 403, "not_a_member");
    expectProblem(await remove(id, "bob", "mallory"), 403, "not_a_member");
  });
});

test("refuses who is there already, who is not there, direct conversations and what is not found", async () => {
  const id = await server.makeGroup(["bob"]);
  const direct = (await server.call("POST", "/v1/conversations", { kind: "direct", members: [newUser()] }))
    .body.id;
  await expectNothingStored(server.postgres, async () => {
    expectProblem(await add(id, { user_id: "bob" }), 409, "already_member");
    expectProblem(await remove(id, "nobody"), 404, "member_not_found");
    expectProblem(await add(direct, { user_id: "carol" }), 409, "direct_conversation");
    expectProblem(await remove(direct, "alice"), 409, "direct_conversation");
    expectProblem(await add(crypto.randomUUID(), { user_id: "bob" }), 404, "conversation_not_found");
    expectProblem(await remove(crypto.randomUUID(), "bob"), 404, "conversation_not_found");
    expectProblem(await add(id, { user_id: "dave", role: "king" }), 400, "invalid_request", ["/role"]);
    expectProblem(await add(id, {}), 400, "invalid_request", ["/user_id"]);
    expectProblem(await remove(id, "x".repeat(129)), 400, "invalid_request", ["/user_id"]);
  });
});

test("what came before a member was added is not unread to them", async () => {
  const [id, user] = [await server.makeGroup([]), newUser()];
  await server.post(id, "before");
  await add(id, { user_id: user });
  await server.post(id, "after");
  const { body } = await server.call("GET", "/v1/conversations", undefined, { as: user });
  expect(body.items[0]).toMatchObject({ unread_count: 1, cursors: { delivered: 2, read: 2 } });
});

test("a conversation has at most 1,000 members", async () => {
  const members = Array.from({ length: 999 }, (_, index) => `m${index}`);
  const id = await server.makeGroup(members);
  const answer = await expectNothingStored(server.postgres, () => add(id, { user_id: "one too many" }));
  expectProblem(answer, 409, "conversation_full");
});
