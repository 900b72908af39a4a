// Tokens for clients and for their users: RFC 6749 as far as the contract takes it.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { startDocumentedServer } from "../support/documented-server.ts";
import { basicHeader, type Credentials, claimsOf, postForm, signIn } from "../support/oauth.ts";
import { expectProblem } from "../support/problems.ts";
import type { Answer, TestServer } from "../support/server.ts";
import { expectNothingStored } from "../support/stored-rows.ts";

let server: TestServer;
let reader: Credentials;
let admin: Credentials;
beforeAll(async () => {
  server = await startDocumentedServer();
  reader = await server.makeClient(["messages:read", "messages:write"]);
  admin = await server.makeClient(["admin"]);
});
afterAll(async () => await server?.[Symbol.asyncDispose]());

const grant = { grant_type: "client_credentials" };
const bodyCredentials = ({ id, secret }: Credentials) => ({ client_id: id, client_secret: secret });
const postJson = (path: string, body: unknown) => server.call("POST", path, body, { as: null });

function expectOAuthError(answer: Answer, status: number, error: string): void {
  expectProblem(answer, status, error);
  expect(answer.body.error).toBe(error);
  expect(answer.body.error_description).toBe(answer.body.detail);
  expect(answer.headers.get("cache-control")).toBe("no-store");
}

describe("client_credentials", () => {
  test("gives the same by Basic or in the body, by form or JSON", async () => {
    const answers = [
      await postForm(server, "/oauth/token", grant, reader),
      await postForm(server, "/oauth/token", { ...grant, ...bodyCredentials(reader) }),
      await postJson("/oauth/token", { ...grant, ...bodyCredentials(reader) }),
      await server.call("POST", "/oauth/token", grant, {
        as: null,
        headers: { authorization: basicHeader(reader) },
      }),
    ];
    for (const answer of answers) {
      expect(answer.status).toBe(200);
      expect(answer.headers.get("cache-control")).toBe("no-store");
      const { access_token, ...rest } = answer.body;
      expect(rest).toEqual({ token_type: "Bearer", expires_in: 3600, scope: "messages:read messages:write" });
      const { iat, exp, jti, ...claims } = claimsOf(access_token);
      expect(claims).toMatchObject({
        sub: reader.id,
        scope: rest.scope,
        iss: "chat4all",
        aud: "chat4all",
      });
      expect(Number(exp) - Number(iat)).toBe(3600);
      expect(jti).toBeString();
      const called = await server.call("GET", "/v1/conversations", undefined, { token: access_token });
      expect(called.status).toBe(200);
    }
  });

  test("narrows the scope on request, and never widens it", async () => {
    const narrow = await postForm(server, "/oauth/token", { ...grant, scope: "messages:read" }, reader);
    expect(narrow.body.scope).toBe("messages:read");
    for (const scope of ["admin", "messages:read admin", "nonsense", "", " "]) {
      expectOAuthError(
        await postForm(server, "/oauth/token", { ...grant, scope }, reader),
        400,
        "invalid_scope",
      );
    }
  });

  test("refuses a wrong secret, an unknown client, and none, with 401", async () => {
    const wrong = [
      { ...reader, secret: "wrong" },
      { ...reader, id: "c_nobody" },
      { id: reader.id, secret: admin.secret },
      { ...reader, id: "x".repeat(129) },
    ];
    for (const credentials of wrong) {
      expectOAuthError(await postForm(server, "/oauth/token", grant, credentials), 401, "invalid_client");
      const inBody = await postForm(server, "/oauth/token", { ...grant, ...bodyCredentials(credentials) });
      expectOAuthError(inBody, 401, "invalid_client");
    }
    expectOAuthError(await postForm(server, "/oauth/token", grant), 401, "invalid_client");
    for (const authorization of ["Basic", "Basic !", "Basic eA==", "Bearer x", "Basic JTpCJQ=="]) {
      const answer = await server.call("POST", "/oauth/token", grant, {
        as: null,
        headers: { authorization },
      });
      expectOAuthError(answer, 401, "invalid_client");
    }
  });

  test("refuses two ways of authentication at once", async () => {
    const answer = await postForm(server, "/oauth/token", { ...grant, ...bodyCredentials(reader) }, reader);
    expectOAuthError(answer, 400, "invalid_request");
  });

  test("refuses other grants, none, and parameters that are not said once and as text", async () => {
    const token = (parameters: Record<string, string> | string) =>
      postForm(server, "/oauth/token", parameters, reader);
    expectOAuthError(await token({ grant_type: "password" }), 400, "unsupported_grant_type");
    expectOAuthError(await token({}), 400, "invalid_request");
    expectOAuthError(
      await token("grant_type=client_credentials&grant_type=client_credentials"),
      400,
      "invalid_request",
    );
    expectOAuthError(await token("grant_type=client_credentials&scope=%00"), 400, "invalid_request");
    expectOAuthError(await token({ grant_type: "refresh_token" }), 400, "invalid_request");
    expectOAuthError(
      await token({ grant_type: "refresh_token", refresh_token: "nothing" }),
      400,
      "invalid_grant",
    );
    for (const body of [
      [],
      null,
      { grant_type: 1 },
      { ...grant, scope: ["messages:read"] },
      { ...grant, scope: "\0" },
    ]) {
      expectOAuthError(await postJson("/oauth/token", body), 400, "invalid_request");
    }
    for (const path of ["/oauth/token", "/oauth/revoke"]) {
      const options = { as: null, rawBody: "{" };
      expectOAuthError(await server.call("POST", path, undefined, options), 400, "malformed_json");
      const plain = { ...options, headers: { "content-type": "text/plain" } };
      expectOAuthError(await server.call("POST", path, undefined, plain), 415, "unsupported_media_type");
      const long = { ...options, rawBody: "x".repeat(16 * 1024 + 1) };
      expectOAuthError(await server.call("POST", path, undefined, long), 413, "body_too_large");
    }
  });

  test("keeps no secret: clients are stored with argon2id", async () => {
    const rows = await server.postgres.query<{ row: string }>("select c::text as row from clients c");
    for (const { row } of rows) {
      expect(row).toContain("$argon2id$");
      for (const { secret } of [reader, admin]) expect(row).not.toContain(secret);
    }
  });
});

describe("POST /v1/users/{user_id}/tokens", () => {
  test("signs a user in, with what OAuth names, by no body, an empty one, or wishes", async () => {
    for (const body of [undefined, {}]) {
      const { answer } = await signIn(server, admin, "dora", body);
      expect(answer.status).toBe(200);
      const { access_token, refresh_token, ...rest } = answer.body;
      expect(rest).toEqual({ token_type: "Bearer", expires_in: 3600, scope: "messages:read messages:write" });
      expect(claimsOf(access_token)).toMatchObject({ sub: "dora", scope: rest.scope });
      expect(refresh_token).toBeString();
    }
    const { answer } = await signIn(server, admin, "dora", { scope: "messages:read", expires_in: 60 });
    expect(answer.body).toMatchObject({ expires_in: 60, scope: "messages:read" });
    const refused = await server.call("POST", "/v1/conversations", {}, { token: answer.body.access_token });
    expect(refused.status).toBeGreaterThanOrEqual(400);
  });

  test("gives no scope beyond a user's, and no life beyond its bounds", async () => {
    const { access } = await signIn(server, admin, "x");
    const token = (await postForm(server, "/oauth/token", grant, admin)).body.access_token;
    const ask = (body: object) => server.call("POST", "/v1/users/dora/tokens", body, { token });
    await expectNothingStored(server.postgres, async () => {
      for (const scope of ["admin", "messages:read admin", "", "nonsense"]) {
        expectProblem(await ask({ scope }), 400, "invalid_scope", ["/scope"]);
      }
      for (const seconds of [0, 29, 86_401, -1, 1.5, "60"]) {
        expectProblem(await ask({ expires_in: seconds }), 400, "invalid_request", ["/expires_in"]);
      }
      const byUser = await server.call("POST", "/v1/users/dora/tokens", {}, { token: access });
      expectProblem(byUser, 403, "insufficient_scope");
    });
  });
});

describe("admin", () => {
  test("makes clients, whose secret is shown once and works", async () => {
    const token = (await postForm(server, "/oauth/token", grant, admin)).body.access_token;
    const make = (body: object) => server.call("POST", "/v1/admin/clients", body, { token });
    const made = await make({ name: "bot", scope: "messages:write messages:read" });
    expect(made.status).toBe(201);
    const { client_id, client_secret, ...rest } = made.body;
    expect(rest).toEqual({ name: "bot", scope: "messages:read messages:write" });
    const signedIn = await postForm(server, "/oauth/token", grant, { id: client_id, secret: client_secret });
    expect(signedIn.status).toBe(200);
    expectProblem(await make({ name: "bot", scope: "root" }), 400, "invalid_scope", ["/scope"]);
    expectProblem(await make({ name: "" }), 400, "invalid_request", ["/name"]);
  });

  test("shows what waits in the outbox, by shard", async () => {
    const token = (await postForm(server, "/oauth/token", grant, admin)).body.access_token;
    const id = await server.makeGroup([]);
    await server.post(id, "waits");
    const { status, body } = await server.call("GET", "/v1/admin/outbox", undefined, { token });
    expect(status).toBe(200);
    expect(body).toMatchObject({ pending_rows: 1, oldest_row_age_seconds: expect.any(Number) });
    expect(body.shards).toHaveLength(server.config.KAFKA_PARTITIONS);
  });
});
