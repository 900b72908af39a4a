// The matrix of every call and every way not to be allowed: an exact refusal, and nothing stored. The calls come from
// the server's own OpenAPI document, so that a new one without a row here makes this file fail.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { type BadToken, makeBadTokens } from "../support/bad-tokens.ts";
import { type DocumentedServer, startDocumentedServer } from "../support/documented-server.ts";
import { expectProblem } from "../support/problems.ts";
import { expectNothingStored } from "../support/stored-rows.ts";

/** What a call needs; `expected` is its answer to who has it. */
interface Row {
  scope: "messages:read" | "messages:write" | "admin" | null;
  isForMembers: boolean;
  expected: number;
  path(conversation: string): string;
  body?(conversation: string): object;
}

const of =
  (rest = "") =>
  (conversation: string) =>
    `/v1/conversations/${conversation}${rest}`;
const payload = { type: "text", text: "x" };
const message = (conversation: string) => ({
  message_id: crypto.randomUUID(),
  conversation_id: conversation,
  payload,
});
const read = { scope: "messages:read", isForMembers: true, expected: 200 } as const;
const write = { scope: "messages:write", isForMembers: true, expected: 202 } as const;
const admin = { scope: "admin", isForMembers: false, expected: 200 } as const;

const rows: Record<string, Row> = {
  "POST /v1/messages": { ...write, path: () => "/v1/messages", body: message },
  // Who is not a member is told so row by row.
  "POST /v1/messages/batch": {
    ...write,
    isForMembers: false,
    expected: 200,
    path: () => "/v1/messages/batch",
    body: (id) => ({ messages: [message(id)] }),
  },
  "PATCH /v1/conversations/{conversation_id}/messages/{sequence_number}": {
    ...write,
    path: of("/messages/1"),
    body: () => ({ payload }),
  },
  "DELETE /v1/conversations/{conversation_id}/messages/{sequence_number}": {
    ...write,
    path: of("/messages/1"),
  },
  "POST /v1/conversations": {
    ...write,
    isForMembers: false,
    expected: 201,
    path: () => "/v1/conversations",
    body: () => ({ kind: "group", members: [] }),
  },
  "POST /v1/conversations/{conversation_id}/members": {
    ...write,
    expected: 201,
    path: of("/members"),
    body: () => ({ user_id: "new" }),
  },
  "DELETE /v1/conversations/{conversation_id}/members/{user_id}": {
    ...write,
    expected: 204,
    path: of("/members/carol"),
  },
  "GET /v1/conversations": { ...read, isForMembers: false, path: () => "/v1/conversations" },
  "GET /v1/conversations/{conversation_id}": { ...read, path: of() },
  "GET /v1/conversations/{conversation_id}/messages": { ...read, path: of("/messages") },
  "GET /v1/conversations/{conversation_id}/messages/{sequence_number}": { ...read, path: of("/messages/1") },
  "POST /v1/conversations/{conversation_id}/receipts": {
    ...read,
    path: of("/receipts"),
    body: () => ({ read: 1 }),
  },
  "GET /v1/conversations/{conversation_id}/events": { ...read, path: of("/events") },
  // Its frames have scopes, see authorisation-sockets.test.ts; without an upgrade it is refused after the token.
  "GET /v1/stream": { scope: null, isForMembers: false, expected: 400, path: () => "/v1/stream" },
  "POST /v1/users/{user_id}/tokens": { ...admin, path: () => "/v1/users/dora/tokens", body: () => ({}) },
  "POST /v1/admin/clients": {
    ...admin,
    expected: 201,
    path: () => "/v1/admin/clients",
    body: () => ({ name: "x" }),
  },
  "GET /v1/admin/outbox": { ...admin, path: () => "/v1/admin/outbox" },
  "GET /v1/admin/dead-letters": { ...admin, path: () => "/v1/admin/dead-letters" },
  "POST /v1/admin/dead-letters/replay": {
    ...admin,
    expected: 202,
    path: () => "/v1/admin/dead-letters/replay",
    body: () => ({}),
  },
  "POST /v1/admin/dead-letters/{id}/replay": {
    ...admin,
    expected: 404,
    path: () => `/v1/admin/dead-letters/${crypto.randomUUID()}/replay`,
  },
};

const open = ["GET /healthz", "GET /readyz", "POST /oauth/token", "POST /oauth/revoke"];
const scopes = ["messages:read", "messages:write", "admin"] as const;
const streams = ["GET /v1/stream", "GET /v1/conversations/{conversation_id}/events"];

let server: DocumentedServer;
let conversation: string;
let badTokens: BadToken[];
beforeAll(async () => {
  server = await startDocumentedServer();
  conversation = await makeConversation();
  badTokens = await makeBadTokens(server, "alice");
});
afterAll(async () => await server?.[Symbol.asyncDispose]());

/** Of alice, its owner, with one message of hers; removed was a member once. */
async function makeConversation(): Promise<string> {
  const id = await server.makeGroup(["bob", "carol", "removed"]);
  await server.post(id, "one");
  await server.call("DELETE", `/v1/conversations/${id}/members/removed`);
  return id;
}

function ask(name: string, options: { token?: string | null; id?: string; query?: string }) {
  const row = rows[name] as Row;
  const id = options.id ?? conversation;
  const path = `${row.path(id)}${options.query ?? ""}`;
  const as = options.token === null ? { as: null } : { token: String(options.token) };
  return server.call(name.slice(0, name.indexOf(" ")), path, row.body?.(id), as);
}

test("every documented call has its row, or is open", () => {
  const documented = Object.entries(server.document.paths).flatMap(([path, operations]) =>
    Object.keys(operations).map((method) => `${method.toUpperCase()} ${path}`),
  );
  expect(documented.toSorted()).toEqual([...Object.keys(rows), ...open].toSorted());
});

test("only the open calls are documented as needing no token", () => {
  for (const [path, operations] of Object.entries(server.document.paths)) {
    for (const [method, operation] of Object.entries(operations)) {
      const isOpen = open.includes(`${method.toUpperCase()} ${path}`);
      expect(JSON.stringify(operation)).toEqual(
        isOpen ? expect.stringContaining('"security":[]') : expect.not.stringContaining('"security":[]'),
      );
    }
  }
});

test.each(Object.keys(rows))("%s refuses every bad token with 401, and stores nothing", async (name) => {
  await expectNothingStored(server.postgres, async () => {
    for (const { token, code } of badTokens) expectProblem(await ask(name, { token }), 401, code);
  });
});

test.each(Object.keys(rows))("%s takes a token in its query only if it is a stream", async (name) => {
  await expectNothingStored(server.postgres, async () => {
    if (!streams.includes(name)) {
      const token = await server.token("alice", { scope: scopes.join(" ") });
      expectProblem(await ask(name, { token: null, query: `?access_token=${token}` }), 401, "missing_token");
      return;
    }
    for (const { token, code } of badTokens) {
      if (token === null) continue;
      expectProblem(await ask(name, { token: null, query: `?access_token=${token}` }), 401, code);
    }
  });
});

test("an event stream takes a token in its query with and without a slash at the end of its path", async () => {
  const id = await server.makeGroup(["bob"]);
  const token = await server.token("alice");
  for (const path of ["events", "events/"]) {
    const stream = await fetch(`${server.url}/v1/conversations/${id}/${path}?access_token=${token}`);
    expect(stream.status).toBe(200);
    await stream.body?.cancel();
  }
});

const scoped = Object.keys(rows).filter((name) => rows[name]?.scope !== null);
test.each(scoped)("%s refuses a token that lacks its scope with 403", async (name) => {
  const others = scopes.filter((scope) => scope !== rows[name]?.scope);
  await expectNothingStored(server.postgres, async () => {
    for (const scope of [others.join(" "), "", "nonsense", `${rows[name]?.scope}x`]) {
      const token = await server.token("alice", { scope });
      expectProblem(await ask(name, { token }), 403, "insufficient_scope");
    }
  });
});

const forMembers = Object.keys(rows).filter((name) => rows[name]?.isForMembers);
test.each(forMembers)("%s refuses strangers and who was removed with 403", async (name) => {
  await expectNothingStored(server.postgres, async () => {
    for (const user of ["mallory", "removed"]) {
      // A scope does not make a member, not even that of an operator.
      const token = await server.token(user, { scope: scopes.join(" ") });
      expectProblem(await ask(name, { token }), 403, "not_a_member");
    }
  });
});

test("a batch refuses strangers and who was removed row by row", async () => {
  await expectNothingStored(server.postgres, async () => {
    for (const user of ["mallory", "removed"]) {
      const { body } = await ask("POST /v1/messages/batch", { token: await server.token(user) });
      expect(body.results).toMatchObject([{ status: 403, code: "not_a_member" }]);
    }
  });
});

test("a list shows nobody the conversations of others", async () => {
  for (const user of ["mallory", "removed"]) {
    const { body } = await server.call("GET", "/v1/conversations", undefined, { as: user });
    expect(body).toEqual({ items: [], next_cursor: null });
  }
});

test.each(Object.keys(rows))("%s answers who has what it needs, and no more", async (name) => {
  const { scope, expected, isForMembers } = rows[name] as Row;
  const id = isForMembers ? await makeConversation() : conversation;
  const token = await server.token("alice", { scope: scope ?? "" });
  if (name.endsWith("/events")) return await expectEventStream(id, token);
  expect((await ask(name, { token, id })).status).toBe(expected);
});

async function expectEventStream(id: string, token: string): Promise<void> {
  const stop = new AbortController();
  const headers = { authorization: `Bearer ${token}` };
  const response = await fetch(`${server.url}${of("/events")(id)}`, { headers, signal: stop.signal });
  expect(response.status).toBe(200);
  expect(response.headers.get("content-type")).toStartWith("text/event-stream");
  stop.abort();
}
