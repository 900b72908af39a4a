// Rate limits while Redis is away behind a proxy, in the ways in which a server can be away: they hold, for each
// instance alone, and cost nobody the time that Redis does not answer in.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { dropAll, dropAnswers, type FaultProxy, passAll, startFaultProxy } from "../support/fault-proxy.ts";
import { callsOf, startServer, type TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";

let proxy: FaultProxy;
let here: TestServer;
let there: ReturnType<typeof callsOf>;
let thereUrl: string;
beforeAll(async () => {
  const redis = new URL(process.env["TEST_REDIS_URL"] ?? "");
  proxy = await startFaultProxy({ target: Number(redis.port) });
  here = await startServer({
    ROLES: "api",
    REDIS_URL: `redis://127.0.0.1:${proxy.port}`,
    RATE_LIMIT_USER_PER_SECOND: "1",
  });
  thereUrl = (await here.startSibling()).url;
  there = callsOf(thereUrl, here.config);
});
afterAll(async () => {
  await here?.[Symbol.asyncDispose]();
  await proxy?.stop();
});

const newUser = () => `user-${crypto.randomUUID()}`;

/** How many of eight posts at once, four to each instance, each takes; and how long the longest took. */
async function post(): Promise<{ taken: number[]; longestMs: number }> {
  const user = newUser();
  const { body } = await here.call(
    "POST",
    "/v1/conversations",
    { kind: "group", members: [user] },
    { as: newUser() },
  );
  let longestMs = 0;
  const postFour = async ({ post: postTo }: Pick<TestServer, "post">) => {
    const answers = await Promise.all(
      Array.from({ length: 4 }, async () => {
        const startedAtMs = performance.now();
        const { status } = await postTo(body.id, "x", { as: user });
        longestMs = Math.max(longestMs, performance.now() - startedAtMs);
        expect([202, 429]).toContain(status);
        return status;
      }),
    );
    return answers.filter((status) => status === 202).length;
  };
  return { taken: await Promise.all([here, there].map(postFour)), longestMs };
}

async function redisIs(state: "up" | "degraded"): Promise<void> {
  for (const url of [here.url, thereUrl]) {
    await until(async () => {
      const { dependencies } = (await (await fetch(`${url}/readyz`)).json()) as {
        dependencies: Record<string, string>;
      };
      return dependencies["redis"] === state;
    }, `Redis is ${state}`);
  }
}

/** Instances share a limit again; the first commands after an outage may still go astray. */
const sharesAgain = () =>
  until(
    async () => (await post()).taken.reduce((sum, taken) => sum + taken) === 2,
    "instances share a limit",
  );

const outages: [string, () => void][] = [
  [
    "refuses connections",
    () => {
      proxy.isRefusing = true;
      proxy.endConnections("reset");
    },
  ],
  [
    "hangs",
    () => {
      proxy.fault = dropAll;
    },
  ],
  [
    "does what it is told and loses the answers",
    () => {
      proxy.fault = dropAnswers;
    },
  ],
];

test.each(outages)(
  "while Redis %s each instance limits for itself, and nobody waits for it",
  async (_, begin) => {
    await redisIs("up");
    await sharesAgain();
    begin();
    const first = await post();
    expect(first.taken).toEqual([2, 2]);
    await redisIs("degraded");
    const later = await post();
    expect(later.taken).toEqual([2, 2]);
    // A command is given up after 100 ms; the rest is what a busy machine takes.
    expect(first.longestMs).toBeLessThan(100 + 400);
    expect(later.longestMs).toBeLessThan(400);

    proxy.isRefusing = false;
    proxy.fault = passAll;
    // What was swallowed belongs to connections that no longer make sense.
    proxy.endConnections("reset");
    await redisIs("up");
    await sharesAgain();
  },
);
