// Hostile bodies, at every call that takes one: a precise 4xx as problem+json, nothing stored, nothing shown again.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { startDocumentedServer } from "../support/documented-server.ts";
import { echoMark, expectProblem } from "../support/problems.ts";
import { rawCall } from "../support/raw-http.ts";
import type { Answer, TestServer } from "../support/server.ts";
import { expectNothingStored } from "../support/stored-rows.ts";

let server: TestServer;
let conversation: string;
let tokens: Record<"user" | "admin", string>;
beforeAll(async () => {
  server = await startDocumentedServer();
  conversation = await server.makeGroup(["bob"]);
  await server.post(conversation, "one");
  tokens = { user: await server.token("alice"), admin: await server.token("operator", { scope: "admin" }) };
});
afterAll(async () => await server?.[Symbol.asyncDispose]());

/** A call with a good body, into which hostile values are put; `free` says where any JSON value may stand. */
interface Call {
  name: string;
  method: string;
  path(): string;
  token: "user" | "admin";
  body(): Record<string, unknown>;
  bytesMax: number;
}

const kib = 1024;
const text = { type: "text", text: "x" };
const message = () => ({ message_id: crypto.randomUUID(), conversation_id: conversation, payload: text });
const of = (rest: string) => () => `/v1/conversations/${conversation}${rest}`;
const user = "user" as const;
const admin = "admin" as const;
const postMessage: Call = {
  name: "POST /messages",
  method: "POST",
  path: () => "/v1/messages",
  token: user,
  body: message,
  bytesMax: 64 * kib,
};
const calls: Call[] = [
  postMessage,
  {
    name: "POST /messages/batch",
    method: "POST",
    path: () => "/v1/messages/batch",
    token: user,
    body: () => ({ messages: [message()] }),
    bytesMax: 2048 * kib,
  },
  {
    name: "POST /conversations",
    method: "POST",
    path: () => "/v1/conversations",
    token: user,
    body: () => ({ kind: "group", members: ["bob"] }),
    bytesMax: 64 * kib,
  },
  {
    name: "POST members",
    method: "POST",
    path: of("/members"),
    token: user,
    body: () => ({ user_id: crypto.randomUUID() }),
    bytesMax: 64 * kib,
  },
  {
    name: "PATCH a message",
    method: "PATCH",
    path: of("/messages/1"),
    token: user,
    body: () => ({ payload: text }),
    bytesMax: 64 * kib,
  },
  {
    name: "POST receipts",
    method: "POST",
    path: of("/receipts"),
    token: user,
    body: () => ({ read: 1 }),
    bytesMax: 64 * kib,
  },
  {
    name: "POST a user's tokens",
    method: "POST",
    path: () => "/v1/users/u/tokens",
    token: admin,
    body: () => ({ expires_in: 60 }),
    bytesMax: 64 * kib,
  },
  {
    name: "POST admin/clients",
    method: "POST",
    path: () => "/v1/admin/clients",
    token: admin,
    body: () => ({ name: "x" }),
    bytesMax: 64 * kib,
  },
];

type Body = Uint8Array | string | (Uint8Array | string)[];

async function send(
  call: Call,
  body: Body | undefined,
  headers: Record<string, string> = {},
): Promise<Answer> {
  const authorization = `Bearer ${tokens[call.token]}`;
  return await rawCall(server.url, {
    method: call.method,
    target: call.path(),
    headers: { authorization, "content-type": "application/json", ...headers },
    ...(body !== undefined && { body }),
  });
}

const sendHostile = (call: Call, body: Body | undefined, headers?: Record<string, string>) =>
  expectNothingStored(server.postgres, () => send(call, body, headers));

/** The good body as JSON text, with one more member. */
const withMember = (call: Call, member: string) => `${JSON.stringify(call.body()).slice(0, -1)},${member}}`;
const nested = (levels: number, inner = "1") => `${"[".repeat(levels)}${inner}${"]".repeat(levels)}`;

/** What JSON can say and Postgres or another reader cannot hold, with the reason that is given. */
const unholdable: [string, string, string[]][] = [
  ["U+0000", "U+0000", ['"a\\u0000b"', '{"\\u0000":1}', '[{"a":["\\u0000"]}]']],
  ["a lone surrogate", "lone surrogate", ['"\\ud800"', '"\\udc00\\ud800"', '{"\\ud83d":1}']],
  [
    "a number beyond 2^53",
    "2^53",
    ["9007199254740992", "-9007199254740992", "1e400", "-1e400", "123456789012345678901234567890"],
  ],
  ["deep nesting", "nested deeper", [nested(32), nested(5_000)]],
];

test("the same values are refused in a payload that may be any JSON", async () => {
  const post = (data: string) =>
    server.call("POST", "/v1/messages", undefined, {
      rawBody: withMember(postMessage, `"payload":{"type":"custom","data":${data}}`),
    });
  for (const [, reason, values] of unholdable) {
    for (const value of values) {
      const answer = await expectNothingStored(server.postgres, () => post(value));
      expectProblem(answer, 400, "invalid_request");
      expect(answer.body.errors[0].message).toContain(reason);
    }
  }
  for (const value of ['"\\ud83d\\ude00"', "9007199254740991", "-0", "1e-400", nested(30)]) {
    expect((await post(value)).status).toBe(202);
  }
});

describe.each(calls)("$name", (call) => {
  test("takes its good body, with a charset and in chunks", async () => {
    const body = JSON.stringify(call.body());
    const type = { "content-type": 'Application/JSON; charset="utf-8"' };
    expect((await send(call, body, type)).status).toBeLessThan(300);
    expect((await send(call, [JSON.stringify(call.body())])).status).toBeLessThan(300);
  });

  test("refuses what is not JSON in UTF-8", async () => {
    const good = JSON.stringify(call.body());
    const bodies: Body[] = [
      `{"${echoMark}`,
      good.slice(0, -1),
      `${good}${good}`,
      `${good.slice(0, -1)},}`,
      Buffer.concat([
        Buffer.from(withMember(call, '"x":"').slice(0, -1)),
        Buffer.from([0xff, 0xfe]),
        Buffer.from('"}'),
      ]),
      // A lone surrogate as raw bytes is no UTF-8 (RFC 3629, 3).
      Buffer.concat([
        Buffer.from(withMember(call, '"x":"').slice(0, -1)),
        Buffer.from([0xed, 0xa0, 0x80]),
        Buffer.from('"}'),
      ]),
      Buffer.from(good, "utf16le"),
      "NaN",
      "\0",
      nested(30_000, ""),
      "[".repeat(30_000),
    ];
    for (const body of bodies.slice(0, -2))
      expectProblem(await sendHostile(call, body), 400, "malformed_json");
    for (const body of bodies.slice(-2)) expect((await sendHostile(call, body)).status).toBe(400);
  });

  test("refuses values that are no object", async () => {
    for (const body of ["null", "1", '"x"', "[]", "true"]) {
      expectProblem(await sendHostile(call, body), 400, "invalid_request", [""]);
    }
  });

  test("refuses no body at all, unless it needs none", async () => {
    for (const body of [undefined, ""]) {
      const answer = await send(call, body);
      if (call.name === "POST a user's tokens") expect(answer.status).toBe(200);
      else expectProblem(answer, 400, "malformed_json");
    }
  });

  test("refuses unknown members, by whatever name", async () => {
    for (const name of ["colour", "", "__proto__", "constructor", "toString", "hasOwnProperty"]) {
      const answer = await sendHostile(call, withMember(call, `${JSON.stringify(name)}:"${echoMark}"`));
      expectProblem(answer, 400, "invalid_request", [`/${name}`]);
    }
    expect(({} as Record<string, unknown>)[echoMark]).toBeUndefined();
  });

  test.each(unholdable)("refuses %s, wherever it stands", async (_what, reason, values) => {
    for (const value of values) {
      const answer = await sendHostile(call, withMember(call, `"x":${value}`));
      expectProblem(answer, 400, "invalid_request");
      expect(answer.body.errors[0].message).toContain(reason);
    }
  });

  test("refuses other content types, and none", async () => {
    const body = JSON.stringify(call.body());
    for (const type of [
      "text/plain",
      "application/x-www-form-urlencoded",
      "multipart/form-data; boundary=x",
      "application/jsonx",
      "text/json",
      "",
    ]) {
      expectProblem(await sendHostile(call, body, { "content-type": type }), 415, "unsupported_media_type");
    }
  });

  test("refuses more bytes than it takes, declared, in chunks, and far too many", async () => {
    const padded = `${JSON.stringify(call.body())}${" ".repeat(call.bytesMax)}`;
    const tooLong = padded.slice(0, call.bytesMax + 1);
    const halves = [tooLong.slice(0, 1000), tooLong.slice(1000)];
    for (const body of [tooLong, halves]) expectProblem(await sendHostile(call, body), 413, "body_too_large");
    expect((await send(call, tooLong.slice(0, -1))).status).toBeLessThan(300);
    const declared = await sendHostile(call, undefined, { "content-length": "99999999999" });
    expect(declared.status).toBe(413);
  });
});
