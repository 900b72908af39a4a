// Hostile ids, numbers and query parameters, and any message at all: a precise 4xx, or the very same message back.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import * as fc from "fast-check";
import { startDocumentedServer } from "../support/documented-server.ts";
import { expectProblem } from "../support/problems.ts";
import { rawCall } from "../support/raw-http.ts";
import type { TestServer } from "../support/server.ts";
import { expectNothingStored } from "../support/stored-rows.ts";

let server: TestServer;
let conversation: string;
let authorization: string;
let adminToken: string;
beforeAll(async () => {
  server = await startDocumentedServer();
  conversation = await server.makeGroup(["bob"]);
  authorization = `Bearer ${await server.token("alice")}`;
  adminToken = await server.token("operator", { scope: "admin" });
});
afterAll(async () => await server?.[Symbol.asyncDispose]());

const raw = (method: string, target: string) =>
  rawCall(server.url, { method, target, headers: { authorization } });
const tokensOf = (user: string) =>
  server.call("POST", `/v1/users/${user}/tokens`, undefined, { token: adminToken });

/** The path with every call that takes an id in it. */
const withId = (id: string): [string, string][] => [
  ["GET", `/v1/conversations/${id}`],
  ["GET", `/v1/conversations/${id}/messages`],
  ["GET", `/v1/conversations/${id}/messages/1`],
  ["GET", `/v1/conversations/${id}/events`],
  ["DELETE", `/v1/conversations/${id}/messages/1`],
  ["DELETE", `/v1/conversations/${id}/members/bob`],
];

describe("ids in paths", () => {
  const badIds = [
    "1",
    "x",
    "%20",
    "null",
    "%7B00000000-0000-0000-0000-000000000000%7D",
    "00000000-0000-0000-0000-00000000000g",
    "000000000000000000000000000000000000",
    `${crypto.randomUUID()}%0A`,
  ];

  test.each(badIds)("a conversation id that is no UUID is refused: %s", async (id) => {
    await expectNothingStored(server.postgres, async () => {
      for (const [method, path] of withId(id)) {
        expectProblem(await server.call(method, path), 400, "invalid_request", ["/conversation_id"]);
      }
    });
  });

  test.each(["%00", "a%00b", "%", "%f", "%zz", "%ff", "%E0%A4", "%ED%A0%80", "%C0%80"])(
    "an id that is no text in percent-encoded UTF-8 is refused: %s",
    async (id) => {
      await expectNothingStored(server.postgres, async () => {
        expectProblem(await tokensOf(id), 400, "invalid_request");
        expectProblem(
          await raw("DELETE", `/v1/conversations/${conversation}/members/${id}`),
          400,
          "invalid_request",
        );
        for (const [method, path] of withId(id))
          expectProblem(await raw(method, path), 400, "invalid_request");
      });
    },
  );

  test("a user id is any text of 1 to 128 characters, as it stands in the path", async () => {
    const emoji = "😀".repeat(128);
    for (const user of ["a/b", "a b", "%", "é", "a?b#c", "__proto__", "x".repeat(128), emoji]) {
      const answer = await tokensOf(encodeURIComponent(user));
      expect(answer.status).toBe(200);
      const claims = JSON.parse(Buffer.from(answer.body.access_token.split(".")[1], "base64url").toString());
      expect(claims.sub).toBe(user);
    }
    for (const user of ["x".repeat(129), `${emoji}x`]) {
      expectProblem(await tokensOf(encodeURIComponent(user)), 400, "invalid_request", ["/user_id"]);
    }
  });

  test("UUIDs in upper case are the same ids, and answered in lower case", async () => {
    const sent = await server.call("POST", "/v1/messages", {
      message_id: crypto.randomUUID().toUpperCase(),
      conversation_id: conversation.toUpperCase(),
      payload: { type: "text", text: "x" },
    });
    expect(sent.body.message_id).toBe(sent.body.message_id.toLowerCase());
    expect(sent.body.conversation_id).toBe(conversation);
    const upper = conversation.toUpperCase();
    const found = await server.call(
      "GET",
      `/v1/conversations/${upper}/messages/${sent.body.sequence_number}`,
    );
    expect(found.body.conversation_id).toBe(conversation);
    const changed = await server.call(
      "DELETE",
      `/v1/conversations/${upper}/messages/${sent.body.sequence_number}`,
    );
    expect(changed.body.conversation_id).toBe(conversation);
  });
});

describe("calls and queries that are not there", () => {
  test.each([
    ["GET", "/v1/messages"],
    ["PUT", "/v1/conversations"],
    ["GET", "/v1/nothing"],
    ["GET", "/v1"],
    ["POST", "//v1/messages"],
    ["GET", "/V1/conversations"],
  ])("%s %s is 404 as a problem", async (method, path) => {
    expectProblem(await raw(method, path), 404, "route_not_found");
  });

  test.each([
    "?limit=1&limit=2",
    "?cursor=%00",
    "?cursor=%ff",
    "?limit=%",
    "?__proto__=1",
    "?limit[]=1",
    "?limit",
    "?=",
  ])("a query that no call has is 400: %s", async (query) => {
    expectProblem(await raw("GET", `/v1/conversations${query}`), 400, "invalid_request");
  });
});

/** JSON values with what tends to break: odd keys, odd numbers, surrogates, NUL, deep nesting. */
const oddText = fc.oneof(
  fc.string({ unit: "binary", maxLength: 40 }),
  fc.string({ unit: "grapheme", maxLength: 20 }),
  fc.constantFrom(
    "",
    "\0",
    "\ud800",
    "__proto__",
    "constructor",
    "toJSON",
    "text",
    "😀".repeat(4096),
    "x".repeat(4097),
  ),
);
const oddNumber = fc.oneof(
  fc.integer(),
  fc.double(),
  fc.constantFrom(-0, 2 ** 53, 2 ** 53 - 1, 5e-324, 1.7976931348623157e308),
);
const { anyJson } = fc.letrec<{ anyJson: unknown }>((tie) => ({
  anyJson: fc.oneof(
    { depthSize: "medium", withCrossShrink: true },
    oddText,
    oddNumber,
    fc.boolean(),
    fc.constant(null),
    fc.array(tie("anyJson"), { maxLength: 5 }),
    fc.dictionary(oddText, tie("anyJson"), { maxKeys: 5 }),
  ),
}));
const anyPayload = fc.oneof(
  { weight: 3, arbitrary: fc.record({ type: fc.constant("custom"), data: anyJson }) },
  { weight: 2, arbitrary: fc.record({ type: fc.constant("text"), text: oddText }) },
  { weight: 1, arbitrary: anyJson },
);
const anyMessage = fc.record(
  {
    message_id: fc.oneof({ weight: 9, arbitrary: fc.uuid() }, { weight: 1, arbitrary: anyJson }),
    payload: anyPayload,
    metadata: fc.dictionary(oddText, anyJson, { maxKeys: 4 }),
  },
  { requiredKeys: ["message_id", "payload"] },
);

test("any message at all is stored and comes back as it was, or is refused and stored nowhere", async () => {
  const seen = { accepted: 0, refused: 0 };
  const property = fc.asyncProperty(anyMessage, async (body) => {
    const sent = JSON.stringify({ conversation_id: conversation, ...body });
    const before = await lastNumber();
    const answer = await server.call("POST", "/v1/messages", undefined, { rawBody: sent });
    if (answer.status !== 202) {
      seen.refused += 1;
      expect(answer.status).toBeOneOf([400, 413]);
      expectProblem(answer, answer.status, answer.status === 413 ? "body_too_large" : "invalid_request");
      expect(await lastNumber()).toBe(before);
      return;
    }
    seen.accepted += 1;
    const { payload, metadata } = JSON.parse(sent);
    const history = await server.call("GET", `/v1/conversations/${conversation}/messages?limit=1`);
    const [item] = history.body.items;
    expect(item.sequence_number).toBe(answer.body.sequence_number);
    expect(JSON.stringify(item.payload)).toBe(JSON.stringify(payload));
    expect(JSON.stringify(item.metadata)).toBe(JSON.stringify(metadata));
  });
  await fc.assert(property, { seed: 20_251, numRuns: 500 });
  expect(seen.accepted).toBeGreaterThan(100);
  expect(seen.refused).toBeGreaterThan(50);
});

async function lastNumber(): Promise<number> {
  const { body } = await server.call("GET", `/v1/conversations/${conversation}`);
  return body.last_sequence_number;
}
