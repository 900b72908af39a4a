// Rate limits as callers see them: of users and of conversations, on two instances that share one Redis.
//
// A limit of one a second lets two come at once. Where a test may run again: a stall of this machine that is longer
// than a command to Redis may take makes an instance judge alone, which is another test's matter.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { type Credentials, postForm, signIn } from "../support/oauth.ts";
import { expectProblem, expectProblemDocument } from "../support/problems.ts";
import { type Answer, type CallOptions, callsOf, startServer, type TestServer } from "../support/server.ts";
import { openSocket } from "../support/socket.ts";
import { expectNothingStored } from "../support/stored-rows.ts";
import { until } from "../support/until.ts";

const mayRunAgain = { retry: 2 };

let here: TestServer;
let there: ReturnType<typeof callsOf>;
beforeAll(async () => {
  here = await startServer({
    ROLES: "api",
    RATE_LIMIT_USER_PER_SECOND: "1",
    RATE_LIMIT_CONVERSATION_PER_SECOND: "2",
  });
  there = callsOf((await here.startSibling()).url, here.config);
});
afterAll(async () => await here?.[Symbol.asyncDispose]());

const newUser = () => `user-${crypto.randomUUID()}`;
const messageTo = (conversationId: string, text = "hello") => ({
  message_id: crypto.randomUUID(),
  conversation_id: conversationId,
  payload: { type: "text", text },
});
const statusesOf = (answers: { status: number }[]) =>
  answers.map(({ status }) => status).toSorted((a, b) => a - b);
const limitsOf = ({ headers }: Answer) =>
  ["limit", "remaining", "reset"].map((name) => headers.get(`ratelimit-${name}`));

/** A group whose owner has made no request within its limit. */
async function makeGroup(...members: string[]): Promise<string> {
  const made = await here.call("POST", "/v1/conversations", { kind: "group", members }, { as: newUser() });
  expect(made.status).toBe(201);
  return made.body.id;
}

async function expectStored(conversationId: string, count: number): Promise<void> {
  const rows = await here.postgres.query("select from messages where conversation_id = $1", [conversationId]);
  expect(rows.length).toBe(count);
}

test(
  "a user may send a burst and is then refused, with what to wait for, and nothing of it is stored",
  async () => {
    const user = newUser();
    const id = await makeGroup(user);
    const first = await here.post(id, "1", { as: user });
    expect({ status: first.status, limits: limitsOf(first) }).toEqual({
      status: 202,
      limits: ["2", "1", "1"],
    });
    const second = await here.post(id, "2", { as: user });
    expect({ status: second.status, limits: limitsOf(second) }).toEqual({
      status: 202,
      limits: ["2", "0", "2"],
    });
    const messageId = crypto.randomUUID();
    const refused = await expectNothingStored(here.postgres, () =>
      here.post(id, "3", { as: user, messageId }),
    );
    expectProblem(refused, 429, "rate_limited");
    expect(refused.headers.get("retry-after")).toBe("1");
    expect(limitsOf(refused)).toEqual(["2", "0", "2"]);
    expect(refused.body.detail).toBe("This user's limit of requests is reached; try again in 1 s.");
    await Bun.sleep(Number(refused.headers.get("retry-after")) * 1000);
    const again = await here.post(id, "3", { as: user, messageId });
    expect(again.body).toMatchObject({ sequence_number: 3, replay: false });
  },
  mayRunAgain,
);

test(
  "what is sent to one instance counts at the other",
  async () => {
    const user = newUser();
    const id = await makeGroup(user);
    const posts = [here, there].flatMap(({ post }) =>
      Array.from({ length: 4 }, () => post(id, "x", { as: user })),
    );
    const statuses = statusesOf(await Promise.all(posts));
    expect(statuses).toEqual([202, 202, 429, 429, 429, 429, 429, 429]);
    await expectStored(id, 2);
  },
  mayRunAgain,
);

test(
  "a conversation has a limit that its members share, and who is refused by it is not charged",
  async () => {
    const members = Array.from({ length: 6 }, newUser);
    const id = await makeGroup(...members);
    const elsewhere = await makeGroup(...members);
    const answers = await Promise.all(members.map((as) => here.post(id, "x", { as })));
    expect(statusesOf(answers)).toEqual([202, 202, 202, 202, 429, 429]);
    const [refused] = answers.filter(({ status }) => status === 429);
    expectProblem(refused as Answer, 429, "rate_limited");
    expect(refused?.body.detail).toStartWith("This conversation's limit of messages is reached");
    expect(limitsOf(refused as Answer).slice(0, 2)).toEqual(["4", "0"]);
    await expectStored(id, 4);
    const refusedMembers = members.filter((_, index) => answers[index]?.status === 429);
    for (const as of refusedMembers) {
      expect((await here.post(elsewhere, "x", { as })).headers.get("ratelimit-remaining")).toBe("1");
    }
  },
  mayRunAgain,
);

test(
  "each row of a batch counts for its conversation, and one beyond the limit does not hurt its neighbours",
  async () => {
    const user = newUser();
    const [full, other] = [await makeGroup(user), await makeGroup(user)];
    const rows = [full, full, full, full, full, other, full].map((id, index) => messageTo(id, String(index)));
    const answer = await here.call("POST", "/v1/messages/batch", { messages: rows }, { as: user });
    expect(answer.status).toBe(200);
    const { results } = answer.body;
    expect(results.map(({ status }: Answer) => status)).toEqual([202, 202, 202, 202, 429, 202, 429]);
    expectProblemDocument(results[4], 429);
    expect(results[4].code).toBe("rate_limited");
    expect(results.slice(0, 4).map((row: Answer["body"]) => row.sequence_number)).toEqual([1, 2, 3, 4]);
    expect(limitsOf(answer)).toEqual(["4", "0", "2"]);
    await expectStored(full, 4);
    // It was one request of the user.
    const next = await here.post(other, "next", { as: user });
    expect({ status: next.status, limits: limitsOf(next).slice(0, 2) }).toEqual({
      status: 202,
      limits: ["2", "0"],
    });
    const batch = { messages: [messageTo(other)] };
    const refused = await expectNothingStored(here.postgres, () =>
      here.call("POST", "/v1/messages/batch", batch, { as: user }),
    );
    expectProblem(refused, 429, "rate_limited");
  },
  mayRunAgain,
);

test(
  "a frame beyond the limit gets an error with its ref, and the socket stays",
  async () => {
    const user = newUser();
    const id = await makeGroup(user);
    using socket = openSocket(here.url, await here.token(user));
    await socket.next({ type: "hello" });
    for (const sequence_number of [1, 2]) {
      expect(await socket.ask({ type: "send", ...messageTo(id) })).toMatchObject({
        type: "ack",
        sequence_number,
      });
    }
    const frame = { type: "send", ref: "third", ...messageTo(id) };
    expect(await socket.ask(frame)).toMatchObject({
      type: "error",
      status: 429,
      code: "rate_limited",
      conversation_id: id,
    });
    await expectStored(id, 2);
    // What is not counted goes on; and so does sending, in time.
    for (const type of ["subscribe", "receipt"]) {
      expect(await socket.ask({ type, conversation_id: id })).not.toMatchObject({ type: "error" });
    }
    await until(async () => (await socket.ask(frame)).type === "ack", "it is taken");
    await expectStored(id, 3);
  },
  mayRunAgain,
);

const changes: [string, (id: string, user: string) => [string, string, unknown?]][] = [
  [
    "an edit",
    (id) => ["PATCH", `/v1/conversations/${id}/messages/1`, { payload: { type: "text", text: "y" } }],
  ],
  ["a delete", (id) => ["DELETE", `/v1/conversations/${id}/messages/1`]],
  ["a new conversation", () => ["POST", "/v1/conversations", { kind: "group", members: [] }]],
  ["adding a member", (id) => ["POST", `/v1/conversations/${id}/members`, { user_id: newUser() }]],
  ["leaving", (id, user) => ["DELETE", `/v1/conversations/${id}/members/${user}`]],
];
test.each(changes)(
  "%s is counted and refused as a message is",
  async (_, callOf) => {
    const user = newUser();
    const body = { kind: "group", members: [] };
    const made = await here.call("POST", "/v1/conversations", body, { as: user });
    const id = made.body.id;
    expect(limitsOf(made).slice(0, 2)).toEqual(["2", "1"]);
    const posted = await here.post(id, "1", { as: user });
    expect(limitsOf(posted).slice(0, 2)).toEqual(["2", "0"]);
    const [method, path, change] = callOf(id, user);
    const refused = await expectNothingStored(here.postgres, () =>
      here.call(method, path, change, { as: user }),
    );
    expectProblem(refused, 429, "rate_limited");
    await Bun.sleep(Number(refused.headers.get("retry-after")) * 1000);
    const taken = await here.call(method, path, change, { as: user });
    expect(taken.status).toBeLessThan(300);
    expect(limitsOf(taken).slice(0, 2)).toEqual(["2", "0"]);
  },
  mayRunAgain,
);

test("reading, receipts and what an admin does are not counted", async () => {
  const user = newUser();
  const id = await makeGroup(user);
  const calls: [string, string, unknown?][] = [
    ["GET", "/v1/conversations"],
    ["GET", `/v1/conversations/${id}`],
    ["GET", `/v1/conversations/${id}/messages`],
    ["POST", `/v1/conversations/${id}/receipts`, {}],
  ];
  for (const [method, path, body] of calls) {
    const answers = await Promise.all(
      Array.from({ length: 5 }, () => here.call(method, path, body, { as: user })),
    );
    expect(answers.map((answer) => [answer.status, ...limitsOf(answer)])).toEqual(
      answers.map(() => [200, null, null, null]),
    );
  }
  const token = await here.token("team", { scope: "admin" });
  const signIns = await Promise.all(
    Array.from({ length: 5 }, () => here.call("POST", `/v1/users/${user}/tokens`, {}, { token })),
  );
  expect(statusesOf(signIns)).toEqual([200, 200, 200, 200, 200]);
});

test(
  "what is refused for another reason before the limits costs nothing of them",
  async () => {
    const user = newUser();
    const id = await makeGroup(user);
    const bad: [number, unknown, CallOptions][] = [
      [400, { ...messageTo(id), payload: { type: "text", text: "" } }, { as: user }],
      [400, undefined, { as: user, rawBody: "{" }],
      [413, messageTo(id, "x".repeat(70_000)), { as: user }],
      [403, messageTo(id), { token: await here.token(user, { scope: "messages:read" }) }],
    ];
    for (const [status, body, options] of bad) {
      expect((await here.call("POST", "/v1/messages", body, options)).status).toBe(status);
    }
    expect(limitsOf(await here.post(id, "x", { as: user })).slice(0, 2)).toEqual(["2", "1"]);
  },
  mayRunAgain,
);

test("who has no part in a conversation uses up nothing of its limit", async () => {
  const user = newUser();
  const id = await makeGroup(user);
  for (let round = 0; round < 4; round += 1) {
    const strangers = await Promise.all([1, 2].map(() => here.post(id, "x", { as: newUser() })));
    expect(statusesOf(strangers)).toEqual([403, 403]);
  }
  const batch = { messages: Array.from({ length: 4 }, (_, index) => messageTo(id, String(index))) };
  await until(async () => {
    const answer = await here.call("POST", "/v1/messages/batch", batch, { as: user });
    return answer.status === 200 && answer.body.results.every(({ status }: Answer) => status === 202);
  }, "all four are taken");
});

test(
  "a token that was taken back uses up nothing of its user's limit",
  async () => {
    const admin: Credentials = await here.makeClient(["admin"]);
    const user = newUser();
    const id = await makeGroup(user);
    const stolen = await signIn(here, admin, user);
    const revoked = await postForm(here, "/oauth/revoke", { token: stolen.access }, admin);
    expect(revoked.status).toBe(200);
    for (let count = 0; count < 4; count += 1) {
      expectProblem(await here.post(id, "x", { token: stolen.access }), 401, "token_revoked");
    }
    expect(limitsOf(await here.post(id, "x", { as: user })).slice(0, 2)).toEqual(["2", "1"]);
  },
  mayRunAgain,
);

test("0 turns a limit off, and with both off nothing is said of them", async () => {
  const off = await here.startSibling({
    RATE_LIMIT_USER_PER_SECOND: "0",
    RATE_LIMIT_CONVERSATION_PER_SECOND: "0",
  });
  const unlimited = callsOf(off.url, here.config);
  const user = newUser();
  const id = await makeGroup(user);
  const answers = await Promise.all(Array.from({ length: 20 }, () => unlimited.post(id, "x", { as: user })));
  expect(answers.map((answer) => [answer.status, ...limitsOf(answer)])).toEqual(
    answers.map(() => [202, null, null, null]),
  );
  const one = await here.startSibling({ RATE_LIMIT_USER_PER_SECOND: "0" });
  const half = callsOf(one.url, here.config);
  const other = await makeGroup(user);
  const limited = await Promise.all(Array.from({ length: 8 }, () => half.post(other, "x", { as: user })));
  expect(limited.filter(({ status }) => status === 429).length).toBeGreaterThan(0);
  expect(limited[0]?.headers.get("ratelimit-limit")).toBe("4");
});
