// Tokens that are taken back, or traded twice: over at once, on every instance, for calls, sockets and streams.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { SignJWT } from "jose";
import { startDocumentedServer } from "../support/documented-server.ts";
import { type Credentials, postForm, signIn } from "../support/oauth.ts";
import { expectProblem } from "../support/problems.ts";
import { callsOf, type TestServer } from "../support/server.ts";
import { openSocket } from "../support/socket.ts";

let here: TestServer;
let there: ReturnType<typeof callsOf> & { url: string };
let admin: Credentials;
beforeAll(async () => {
  here = await startDocumentedServer();
  const { url } = await here.startSibling();
  there = { url, ...callsOf(url, here.config) };
  admin = await here.makeClient(["admin"]);
});
afterAll(async () => await here?.[Symbol.asyncDispose]());

const revoke = (token: string, client = admin) => postForm(here, "/oauth/revoke", { token }, client);
const refresh = (token: string, client = admin) =>
  postForm(here, "/oauth/token", { grant_type: "refresh_token", refresh_token: token }, client);
const isAccepted = async (node: Pick<TestServer, "call">, token: string) => {
  const answer = await node.call("GET", "/v1/conversations", undefined, { token });
  if (answer.status !== 200) expectProblem(answer, 401, "token_revoked");
  return answer.status === 200;
};

/** A socket and an event stream of one token, open at a node. */
async function openStreams(url: string, token: string, conversation: string) {
  const socket = openSocket(url, token);
  await socket.next({ type: "hello" });
  await socket.ask({ type: "subscribe", conversation_id: conversation });
  const response = await fetch(`${url}/v1/conversations/${conversation}/events?access_token=${token}`);
  expect(response.status).toBe(200);
  const ended = response.text();
  return {
    async closed() {
      expect(await socket.closed()).toBe(1008);
      expect(socket.frames.at(-1)).toMatchObject({ type: "error", status: 401, code: "token_revoked" });
      await ended;
    },
  };
}

async function expectOver(access: string): Promise<void> {
  for (const node of [here, there]) {
    expect(await isAccepted(node, access)).toBe(false);
    const stream = await node.call("GET", `/v1/conversations/${crypto.randomUUID()}/events`, undefined, {
      token: access,
    });
    expectProblem(stream, 401, "token_revoked");
    using refused = openSocket(node.url, access);
    expect(await refused.closed()).not.toBe(1000);
    expect(refused.frames).toEqual([]);
  }
  const posted = await there.post(crypto.randomUUID(), "x", { token: access });
  expectProblem(posted, 401, "token_revoked");
}

test("an access token that is revoked here is over at once there, for calls, sockets and event streams", async () => {
  const { access, refresh: refreshToken } = await signIn(here, admin, "alice");
  const conversation = await here.makeGroup(["bob"]);
  const streams = [
    await openStreams(here.url, access, conversation),
    await openStreams(there.url, access, conversation),
  ];
  expect(await isAccepted(there, access)).toBe(true);
  expect((await revoke(access)).status).toBe(200);
  await expectOver(access);
  for (const stream of streams) await stream.closed();
  // One access token: its family lives on.
  expect((await refresh(refreshToken)).status).toBe(200);
});

test("a refresh token that is revoked takes its family along", async () => {
  const { access, refresh: refreshToken } = await signIn(here, admin, "alice");
  const conversation = await here.makeGroup(["bob"]);
  const streams = await openStreams(there.url, access, conversation);
  expect((await revoke(refreshToken)).status).toBe(200);
  await expectOver(access);
  await streams.closed();
  expectProblem(await refresh(refreshToken), 400, "invalid_grant");
});

test("a refresh token is traded once for the next; traded again, its whole family is over everywhere", async () => {
  const first = await signIn(here, admin, "alice");
  const second = await refresh(first.refresh);
  expect(second.status).toBe(200);
  expect(second.body.refresh_token).not.toBe(first.refresh);
  expect(second.body).toMatchObject({ token_type: "Bearer", scope: "messages:read messages:write" });
  const third = await refresh(second.body.refresh_token);
  expect(third.status).toBe(200);
  expect(await isAccepted(there, first.access)).toBe(true);
  const conversation = await here.makeGroup(["bob"]);
  const streams = await openStreams(there.url, third.body.access_token, conversation);

  expectProblem(await refresh(first.refresh), 400, "invalid_grant");
  for (const access of [first.access, second.body.access_token, third.body.access_token])
    await expectOver(access);
  await streams.closed();
  expectProblem(await refresh(third.body.refresh_token), 400, "invalid_grant");
});

test("of a refresh token that is traded twice at once, no family survives", async () => {
  const { refresh: refreshToken } = await signIn(here, admin, "alice");
  const answers = await Promise.all([refresh(refreshToken), refresh(refreshToken)]);
  const traded = answers.filter(({ status }) => status === 200);
  expect(traded).toHaveLength(1);
  expect(await isAccepted(there, traded[0]?.body.access_token)).toBe(false);
});

test("a refresh token is its client's own, and another client can neither trade nor revoke it", async () => {
  const other = await here.makeClient(["admin"]);
  const { access, refresh: refreshToken } = await signIn(here, admin, "alice");
  expectProblem(await refresh(refreshToken, other), 400, "invalid_grant");
  // RFC 7009, 2.2: nobody is told whether the token was one.
  expect((await revoke(refreshToken, other)).status).toBe(200);
  expect((await revoke(access, other)).status).toBe(200);
  expect(await isAccepted(there, access)).toBe(true);
  expect((await refresh(refreshToken)).status).toBe(200);
});

test("a token that a team's backend made itself is taken back by a client of scope admin, and by no other", async () => {
  const reader = await here.makeClient(["messages:read"]);
  const sign = (claims: object) =>
    new SignJWT({ scope: "messages:read messages:write", ...claims })
      .setProtectedHeader({ alg: "HS256" })
      .setSubject("alice")
      .setIssuer(here.config.JWT_ISSUER)
      .setAudience(here.config.JWT_AUDIENCE)
      .setExpirationTime("10 minutes")
      .sign(new TextEncoder().encode(here.config.JWT_SECRET));
  for (const claims of [{}, { jti: "our own" }, { client_id: "our-shop" }]) {
    const access = await sign({ ...claims, unique: crypto.randomUUID() });
    expect((await revoke(access, reader)).status).toBe(200);
    expect(await isAccepted(there, access)).toBe(true);
    expect((await revoke(access)).status).toBe(200);
    await expectOver(access);
  }
});

test("to revoke what is no token is 200, and to revoke without a client or a token is refused", async () => {
  for (const token of ["nothing", "a.b.c", ""]) expect((await revoke(token)).status).toBe(200);
  expectProblem(await postForm(here, "/oauth/revoke", { token: "x" }), 401, "invalid_client");
  expectProblem(await postForm(here, "/oauth/revoke", {}, admin), 400, "invalid_request");
});

test("a token that expires ends its sockets and event streams, too", async () => {
  const access = await here.token("alice", { expiresInSeconds: 2 });
  const conversation = await here.makeGroup(["bob"]);
  using socket = openSocket(there.url, access);
  await socket.next({ type: "hello" });
  const stream = await fetch(`${there.url}/v1/conversations/${conversation}/events?access_token=${access}`);
  expect(stream.status).toBe(200);
  expect(await socket.closed()).toBe(1008);
  expect(socket.frames.at(-1)).toMatchObject({ type: "error", status: 401, code: "token_expired" });
  await stream.text();
  expectProblem(
    await here.call("GET", "/v1/conversations", undefined, { token: access }),
    401,
    "token_expired",
  );
});
