// Tokens of another issuer, by its JWKS: so that a team's own backend can sign its users in.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { exportJWK, generateKeyPair, SignJWT } from "jose";
import { expectProblem } from "../support/problems.ts";
import { startServer, type TestServer } from "../support/server.ts";
import { openSocket } from "../support/socket.ts";

type KeyPair = Awaited<ReturnType<typeof generateKeyPair>>;

let server: TestServer;
let issuer: Bun.Server<undefined>;
let published: object[] = [];
const answerWithKeys = () => Response.json({ keys: published });
let answerOfIssuer: () => Response = answerWithKeys;
let keys: Record<"RS256" | "ES256" | "RS512" | "unknown", KeyPair>;

beforeAll(async () => {
  keys = {
    RS256: await generateKeyPair("RS256"),
    ES256: await generateKeyPair("ES256"),
    RS512: await generateKeyPair("RS512"),
    unknown: await generateKeyPair("ES256"),
  };
  published = await Promise.all(
    (["RS256", "ES256", "RS512"] as const).map(async (kid) => ({
      ...(await exportJWK(keys[kid].publicKey)),
      kid,
    })),
  );
  issuer = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch: () => answerOfIssuer(),
  });
  server = await startServer({
    ROLES: "api",
    JWT_JWKS_URL: `${issuer.url.href}keys`,
    JWT_ISSUER: "https://issuer.example",
    JWT_AUDIENCE: "chat",
  });
});
afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
  await issuer?.stop(true);
});

interface Wish {
  key?: keyof typeof keys;
  algorithm?: string;
  claims?: Record<string, unknown>;
}

function sign({ key = "RS256", algorithm = key, claims = {} }: Wish = {}): Promise<string> {
  const now = Math.floor(Date.now() / 1000);
  return new SignJWT({
    sub: "alice",
    scope: "messages:read messages:write",
    iss: "https://issuer.example",
    aud: "chat",
    iat: now,
    exp: now + 60,
    ...claims,
  })
    .setProtectedHeader({ alg: algorithm, kid: key })
    .sign(keys[key].privateKey);
}

const list = (token: string) => server.call("GET", "/v1/conversations", undefined, { token });

test.each(["RS256", "ES256"] as const)(
  "a token that is signed with %s is taken, by calls and sockets",
  async (key) => {
    const token = await sign({ key });
    const made = await server.call("POST", "/v1/conversations", { kind: "group", members: [] }, { token });
    expect(made.status).toBe(201);
    expect(made.body.created_by).toBe("alice");
    using socket = openSocket(server.url, token, "header");
    expect(await socket.next({ type: "hello" })).toEqual({ type: "hello", user_id: "alice" });
  },
);

test("a token of our own secret is taken beside them, for the same issuer and audience", async () => {
  expect((await list(await server.token("alice"))).status).toBe(200);
});

test("an audience among several is enough", async () => {
  expect((await list(await sign({ claims: { aud: ["other", "chat"] } }))).status).toBe(200);
});

test.each<[string, Wish, string]>([
  ["another issuer", { claims: { iss: "https://other.example" } }, "invalid_token"],
  ["no issuer", { claims: { iss: undefined } }, "invalid_token"],
  ["another audience", { claims: { aud: "other" } }, "invalid_token"],
  ["no subject", { claims: { sub: undefined } }, "invalid_token"],
  ["an empty subject", { claims: { sub: "" } }, "invalid_token"],
  ["a subject that is a number", { claims: { sub: 7 } }, "invalid_token"],
  ["a subject with U+0000", { claims: { sub: "a\0b" } }, "invalid_token"],
  ["a subject of 129 characters", { claims: { sub: "x".repeat(129) } }, "invalid_token"],
  ["no end", { claims: { exp: undefined } }, "invalid_token"],
  ["an end that is past", { claims: { exp: 1_600_000_000 } }, "token_expired"],
  ["a beginning that is to come", { claims: { nbf: 4_000_000_000 } }, "invalid_token"],
  ["a published key, but another algorithm", { key: "RS512" }, "invalid_token"],
  ["a key that is not published", { key: "unknown", algorithm: "ES256" }, "invalid_token"],
])("a token with %s is refused", async (_what, wish, code) => {
  expectProblem(await list(await sign(wish)), 401, code);
});

test("a published key is no secret for HS256", async () => {
  for (const kid of ["RS256", "ES256"] as const) {
    const secret = new TextEncoder().encode(JSON.stringify(await exportJWK(keys[kid].publicKey)));
    const token = await new SignJWT({ sub: "alice", iss: "https://issuer.example", aud: "chat" })
      .setProtectedHeader({ alg: "HS256", kid })
      .setExpirationTime("1m")
      .sign(secret);
    expectProblem(await list(token), 401, "invalid_token");
  }
});

test.each([
  ["an error", () => new Response(null, { status: 500 })],
  ["no JSON", () => new Response("<html>")],
  ["no keys", () => Response.json({})],
])("an issuer that answers %s makes 503, and a retry helps once it has keys", async (_what, answer) => {
  const sibling = await server.startSibling();
  const token = await sign({ key: "ES256" });
  const ask = async () => {
    const response = await fetch(`${sibling.url}/v1/conversations`, {
      headers: { authorization: `Bearer ${token}` },
    });
    return { status: response.status, headers: response.headers, body: await response.json() };
  };
  answerOfIssuer = answer;
  expectProblem(await ask(), 503, "keys_unavailable");
  answerOfIssuer = answerWithKeys;
  expect((await ask()).status).toBe(200);
});
