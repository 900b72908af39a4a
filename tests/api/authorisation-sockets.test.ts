// The matrix of every frame and every way not to be allowed: an exact refusal, and nothing stored. The frames come
// from the server's own AsyncAPI document, so that a new one without a row here makes this file fail.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { type BadToken, makeBadTokens, makeRevokedToken } from "../support/bad-tokens.ts";
import { claimsOf } from "../support/oauth.ts";
import { expectProblem } from "../support/problems.ts";
import { rawCall } from "../support/raw-http.ts";
import { startServer, type TestServer } from "../support/server.ts";
import { openSocket, type TestSocket } from "../support/socket.ts";
import { expectNothingStored } from "../support/stored-rows.ts";

/** A frame, the scope that it needs, and what a stranger and a member get. */
interface Row {
  scope: "messages:read" | "messages:write" | null;
  /** Code of the error frame; null: there is nothing to refuse. */
  stranger: string | null;
  answer: object;
  fields?(): object;
}

const rows: Record<string, Row> = {
  subscribe: {
    scope: "messages:read",
    stranger: "not_a_member",
    answer: { type: "subscribed", last_sequence_number: 4 },
  },
  unsubscribe: { scope: null, stranger: null, answer: { type: "unsubscribed", code: "requested" } },
  send: {
    scope: "messages:write",
    stranger: "not_a_member",
    answer: { type: "ack", replay: false },
    fields: () => ({ message_id: crypto.randomUUID(), payload: { type: "text", text: "x" } }),
  },
  receipt: {
    scope: "messages:read",
    stranger: "not_a_member",
    answer: { type: "receipt", user_id: "alice", delivered: 1, read: 1 },
    fields: () => ({ read: 1 }),
  },
  typing: {
    scope: "messages:write",
    stranger: "not_subscribed",
    answer: { type: "error", code: "not_subscribed" },
  },
  ping: { scope: null, stranger: null, answer: { type: "pong" } },
};
const names = Object.keys(rows);

let server: TestServer;
let conversation: string;
let badTokens: BadToken[];
beforeAll(async () => {
  server = await startServer({ ROLES: "api" });
  conversation = await server.makeGroup(["bob", "removed"]);
  for (const text of ["one", "two", "three"]) await server.post(conversation, text);
  await server.call("DELETE", `/v1/conversations/${conversation}/members/removed`);
  badTokens = await makeBadTokens(server, "alice");
});
afterAll(async () => await server?.[Symbol.asyncDispose]());

function frameOf(type: string): Record<string, unknown> {
  if (type === "ping") return { type };
  return { type, conversation_id: conversation, ...rows[type]?.fields?.() };
}

async function open(token: string): Promise<TestSocket> {
  const socket = openSocket(server.url, token);
  await socket.next({ type: "hello" });
  return socket;
}

/** Sends the frame and expects that the socket is closed with 1008, told why. */
async function expectClosed(socket: TestSocket, type: string, code: string): Promise<void> {
  socket.send({ ...frameOf(type), ref: 1 });
  expect(await socket.closed()).toBe(1008);
  expect(socket.frames.at(-1)).toMatchObject({ type: "error", status: 401, code });
}

test("every documented frame has its row", async () => {
  const { body } = await server.call("GET", "/docs/asyncapi.json", undefined, { as: null });
  const documented = Object.keys(body.components.messages).filter((name) => name.startsWith("client."));
  expect(documented.toSorted()).toEqual(names.map((name) => `client.${name}`).toSorted());
});

test("the upgrade refuses every bad token with 401, in the header and in the query", async () => {
  const upgrade = {
    connection: "Upgrade, close",
    upgrade: "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
  };
  for (const { token, code } of badTokens) {
    const authorization: Record<string, string> = token === null ? {} : { authorization: `Bearer ${token}` };
    const byHeader = { method: "GET", target: "/v1/stream", headers: { ...upgrade, ...authorization } };
    expectProblem(await rawCall(server.url, byHeader), 401, code);
    const byQuery = { method: "GET", target: `/v1/stream?access_token=${token ?? ""}`, headers: upgrade };
    expectProblem(await rawCall(server.url, byQuery), 401, token === null ? "invalid_token" : code);
  }
});

test.each(names)("%s answers who has what it needs, and no more", async (type) => {
  using socket = await open(await server.token("alice", { scope: rows[type]?.scope ?? "" }));
  expect(await socket.ask(frameOf(type))).toMatchObject(rows[type]?.answer ?? {});
});

test.each(names.filter((name) => rows[name]?.scope !== null))(
  "%s refuses a token that lacks its scope",
  async (type) => {
    const others = ["messages:read", "messages:write", "admin"].filter(
      (scope) => scope !== rows[type]?.scope,
    );
    await expectNothingStored(server.postgres, async () => {
      for (const scope of [others.join(" "), ""]) {
        using socket = await open(await server.token("alice", { scope }));
        const answer = await socket.ask(frameOf(type));
        expect(answer).toMatchObject({ type: "error", status: 403, code: "insufficient_scope" });
      }
    });
  },
);

test.each(names)("%s gives strangers, and who was removed, nothing", async (type) => {
  await expectNothingStored(server.postgres, async () => {
    for (const user of ["mallory", "removed"]) {
      using socket = await open(await server.token(user));
      const answer = await socket.ask(frameOf(type));
      const code = rows[type]?.stranger ?? null;
      expect(answer).toMatchObject(
        code === null ? (rows[type]?.answer ?? {}) : { type: "error", status: 403, code },
      );
    }
  });
});

test.each(names)("%s on a socket whose token was revoked meanwhile closes it", async (type) => {
  const token = await server.token("bob");
  using socket = await open(token);
  await makeRevokedToken(server, token, String(claimsOf(token)["jti"]));
  await expectNothingStored(server.postgres, () => expectClosed(socket, type, "token_revoked"));
  // What needs a right asks each time; the rest may be answered until somebody looks, within a second.
  const isAsked = ["subscribe", "send", "receipt"].includes(type);
  if (isAsked) expect(socket.frames.map((frame) => frame.type)).toEqual(["hello", "error"]);
});

test("every frame on a socket whose token has expired meanwhile closes it", async () => {
  const token = await server.token("alice", { expiresInSeconds: 2 });
  const sockets = await Promise.all(names.map(async (type) => ({ type, socket: await open(token) })));
  await expectNothingStored(server.postgres, async () => {
    await Bun.sleep(Number(claimsOf(token)["exp"]) * 1000 - Date.now());
    await Promise.all(sockets.map(({ type, socket }) => expectClosed(socket, type, "token_expired")));
  });
});

test("who is removed while subscribed is told so, and gets and may nothing from then on", async () => {
  const group = await server.makeGroup(["bob"]);
  using socket = await open(await server.token("bob"));
  await socket.ask({ type: "subscribe", conversation_id: group });
  await server.post(group, "before");
  expect(await socket.next({ type: "message" })).toMatchObject({ sequence_number: 1 });
  await server.call("DELETE", `/v1/conversations/${group}/members/bob`);
  expect(await socket.next({ type: "unsubscribed" })).toMatchObject({
    conversation_id: group,
    code: "member_removed",
  });
  await server.post(group, "after");
  for (const type of ["subscribe", "send", "receipt", "typing"]) {
    const answer = await socket.ask({ ...frameOf(type), conversation_id: group });
    expect(answer).toMatchObject({ type: "error", status: 403, code: rows[type]?.stranger });
  }
  await socket.ask({ type: "ping" });
  expect(socket.frames.filter(({ sequence_number }) => sequence_number > 2)).toEqual([]);
  expect(JSON.stringify(socket.frames)).not.toContain("after");
});
