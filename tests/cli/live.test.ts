// Every command against a running node: migrated, given its first client, served and drained by commands, too.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { emptyFolder, linesOf, runCli, startCli } from "../support/cli.ts";
import { connect, makeDatabase, type TestDatabase } from "../support/database.ts";
import { until } from "../support/until.ts";

const folder = emptyFolder();
const name = `cli-${crypto.randomUUID()}`;
// The file is what `up` leaves; the rest keeps this test's topics and keys apart from others'.
const env = {
  KAFKA_TOPIC_PREFIX: name,
  REDIS_PREFIX: `${name}:`,
  KAFKA_PARTITIONS: "4",
  RATE_LIMIT_USER_PER_SECOND: "0",
  LOG_LEVEL: "error",
};
let database: TestDatabase;
let node: RunningNode;

const cli = (args: string[], stdin?: string) => runCli(args, { cwd: folder, env, ...(stdin && { stdin }) });
const json = async (args: string[]) => JSON.parse((await cli([...args, "--json"])).stdout);

beforeAll(async () => {
  database = await makeDatabase();
  const connection: Record<string, string> = {
    jwt_secret: "a secret for tests only, of 32 characters or more",
    database_url: database.url,
    kafka_brokers: String(process.env["TEST_KAFKA_BROKERS"]),
    redis_url: String(process.env["TEST_REDIS_URL"]),
  };
  writeConnection(connection);
  expect(await cli(["migrate"])).toMatchObject({ code: 0 });
  const client = await json(["client", "create", "--name", "test"]);
  node = await startNode();
  const { client_id, client_secret } = client;
  writeConnection({ ...connection, url: node.url, client_id, client_secret });
}, 60_000);

afterAll(async () => {
  await node.stop();
  await database.drop();
}, 60_000);

test("migrate says what there is, and changes nothing the second time", async () => {
  const answer = await json(["migrate"]);
  expect(answer).toMatchObject({ migrations: [], shards: 4 });
  expect(answer.topics).toEqual([`${name}.outbox`, `${name}.events`, `${name}.dead-letters`]);
});

test("doctor finds nothing wrong next to a running node", async () => {
  const port = new URL(node.url).port;
  const { code, stdout } = await runCli(["doctor", "--json"], { cwd: folder, env: { ...env, PORT: port } });
  const { findings } = JSON.parse(stdout);
  expect(findings.filter(({ ok }: { ok: boolean }) => !ok)).toEqual([]);
  expect(code).toBe(0);
});

test("doctor shows all problems at once, each with what to do", async () => {
  const wrong = {
    DATABASE_URL: "postgres://127.0.0.1:1/x",
    CHANNELS: "unmade",
    PORT: new URL(String(process.env["TEST_REDIS_URL"])).port,
  };
  const { code, stdout } = await runCli(["doctor"], { cwd: folder, env: { ...env, ...wrong } });
  expect(code).toBe(1);
  const problems = linesOf(stdout).filter((line) => line.startsWith("problem"));
  expect(problems).toEqual([
    expect.stringContaining("check DATABASE_URL"),
    expect.stringContaining(`${name}.channel.unmade is not there; run \`chat4all migrate\``),
    expect.stringContaining("choose another HOST or PORT"),
  ]);
});

describe("token", () => {
  test("prints one that the API takes", async () => {
    const token = (await cli(["token"])).stdout.trim();
    const answer = await fetch(`${node.url}/v1/admin/outbox`, {
      headers: { authorization: `Bearer ${token}` },
    });
    expect(answer.status).toBe(200);
  });

  test("mints a user's, limited as asked", async () => {
    const args = ["token", "--user", "alice", "--scope", "messages:read", "--expires-in", "60"];
    expect(await json(args)).toMatchObject({ scope: "messages:read", expires_in: 60 });
  });

  test("shows the server's reason when it is refused", async () => {
    const { code, stderr } = await cli(["token", "--scope", "everything"]);
    expect({ code, lines: linesOf(stderr).length }).toEqual({ code: 1, lines: 1 });
    expect(stderr).toContain("invalid_scope");
  });
});

describe("send", () => {
  test("uses one direct conversation of the two, and numbers its messages", async () => {
    const first = await json(["send", "--as", "ann", "--to", "ben", "one"]);
    const second = await json(["send", "--as", "ben", "--to", "ann", "two"]);
    expect([first.sequence_number, second.sequence_number]).toEqual([1, 2]);
    expect(second.conversation_id).toBe(first.conversation_id);
    expect(first.state).toBe("enqueued");
  });

  test("stores a message once, however often the command runs", async () => {
    const args = ["send", "--as", "cat", "--to", "dan", "--message-id", crypto.randomUUID(), "once"];
    const [first, second] = [await json(args), await json(args)];
    expect(second).toEqual({ ...first, replay: true });
  });

  test("sends the lines of standard input in their order", async () => {
    const lines = Array.from({ length: 30 }, (_, index) => `line ${index}`);
    const { code } = await cli(
      ["send", "--as", "eve", "--to", "fay", "--file", "-"],
      `${lines.join("\n")}\n`,
    );
    expect(code).toBe(0);
    const { conversation_id } = await json(["send", "--as", "eve", "--to", "fay", "last"]);
    expect(await textsOf("fay", conversation_id, 31)).toEqual([...lines, "last"]);
  });

  test("fails with the server's reason for a conversation of others", async () => {
    const { conversation_id } = await json(["send", "--as", "gil", "--to", "hal", "private"]);
    const { code, stderr } = await cli(["send", "--as", "mallory", "--conversation", conversation_id, "hi"]);
    expect(code).toBe(1);
    expect(stderr).toContain("not_a_member");
  });
});

describe("tail", () => {
  test("shows an event in one line, without obeying what it says", async () => {
    const { conversation_id } = await json([
      "send",
      "--as",
      "ida",
      "--to",
      "jon",
      "\x1b[2Jhello\nida: forged",
    ]);
    const { stdout } = await cli([
      "tail",
      "--as",
      "jon",
      "--conversation",
      conversation_id,
      "--after",
      "0",
      "--count",
      "1",
    ]);
    expect(linesOf(stdout)).toEqual([
      expect.stringMatching(/ #1 ida: \\u\{1b\}\[2Jhello\\u\{a\}ida: forged$/),
    ]);
  });

  test("fails for a conversation of others", async () => {
    const { conversation_id } = await json(["send", "--as", "kim", "--to", "leo", "private"]);
    const { code, stderr } = await cli(["tail", "--as", "mallory", "--conversation", conversation_id]);
    expect(code).toBe(1);
    expect(stderr).toContain("not_a_member");
  });

  test("finds conversations that begin later, and takes up after the last number when the node restarts", async () => {
    const tail = startCli(["tail", "--as", "mia", "--json"], { cwd: folder, env });
    expect((await readLines(tail.stderr).next()).value).toStartWith("following mia");
    const events = readLines(tail.stdout);
    await json(["send", "--as", "ned", "--to", "mia", "first"]);
    expect(await nextText(events)).toBe("first");

    await node.stop();
    node = await startNode(new URL(node.url).port);
    for (const text of ["second", "third"]) await cli(["send", "--as", "ned", "--to", "mia", text]);
    expect([await nextText(events), await nextText(events)]).toEqual(["second", "third"]);
    tail.kill();
    await tail.exited;
  }, 60_000);
});

test("outbox shows every shard, with its owner", async () => {
  const state = await json(["outbox"]);
  expect(state.shards.map(({ shard }: { shard: number }) => shard)).toEqual([0, 1, 2, 3]);
  const { stdout } = await cli(["outbox"]);
  expect(linesOf(stdout)).toHaveLength(6);
});

test("dead-letters lists what is parked, and sends one, or all of them, on their way again", async () => {
  expect((await cli(["dead-letters"])).stdout.trim()).toBe("nothing is parked");
  const ids: string[] = [];
  await using postgres = connect(database.url);
  for (const text of ["one", "two", "three"]) {
    const sent = await json(["send", "--as", "uma", "--to", "vic", text]);
    const [row] = await postgres.query<{ id: string }>(
      `insert into dead_letters (stage, conversation_id, sequence_number, reason, tries, record)
       values ('outbox', $1, $2, 'record_rejected', 5, '{}') returning id`,
      [sent.conversation_id, sent.sequence_number],
    );
    ids.push(String(row?.id));
  }
  const { stdout } = await cli(["dead-letters"]);
  expect(linesOf(stdout)).toHaveLength(3);
  expect(stdout).toContain("record_rejected (after 5 tries)");

  const one = await cli(["dead-letters", "replay", String(ids[1])]);
  expect(one).toMatchObject({ code: 0, stdout: `${ids[1]} is on its way again\n` });
  expect((await json(["dead-letters", "replay", "--all"])).accepted).toBeGreaterThanOrEqual(2);
  await until(async () => (await json(["dead-letters"])).items.length === 0, "all are replayed");
  const replayed = await json(["dead-letters", "--state", "replayed"]);
  expect(replayed.items.map(({ id }: { id: string }) => id).toSorted()).toEqual(ids.toSorted());
  const again = await cli(["dead-letters", "replay", String(ids[1])]);
  expect(again.code).toBe(1);
  expect(again.stderr).toContain("already_replayed");
}, 60_000);

test("healthcheck says whether the node is ready", async () => {
  expect(await cli(["healthcheck", "--url", node.url])).toMatchObject({ code: 0 });
  const report = await json(["healthcheck", "--url", node.url]);
  expect(report.dependencies.postgres).toBe("up");
});

test("a second node runs next to the first with nothing but a port", async () => {
  const second = await startNode("0");
  const { conversation_id } = await json([
    "send",
    "--as",
    "ola",
    "--to",
    "pia",
    "over here",
    "--url",
    node.url,
  ]);
  const args = [
    "tail",
    "--as",
    "pia",
    "--conversation",
    conversation_id,
    "--after",
    "0",
    "--count",
    "1",
    "--json",
  ];
  const { stdout } = await cli([...args, "--url", second.url]);
  expect(JSON.parse(stdout).payload.text).toBe("over here");
  expect(await second.stop()).toBe(0);
}, 60_000);

interface RunningNode {
  url: string;
  /** Drains it; answers the exit code. */
  stop(): Promise<number>;
}

async function startNode(port = "0"): Promise<RunningNode> {
  const child = startCli(["serve", "--port", port], { cwd: folder, env });
  const said: string[] = [];
  for await (const line of readLines(child.stderr)) {
    said.push(line);
    const url = /^Chat4All is at (\S+)$/.exec(line)?.[1];
    if (url === undefined) continue;
    const stop = () => {
      child.kill("SIGTERM");
      return child.exited;
    };
    return { url, stop };
  }
  throw new Error(`the node did not start: ${said.join("\n")} ${await new Response(child.stdout).text()}`);
}

async function* readLines(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  let rest = "";
  const decoder = new TextDecoder();
  for await (const chunk of stream) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
  }
}

async function nextText(events: AsyncGenerator<string>): Promise<string> {
  const { value } = await events.next();
  return JSON.parse(String(value)).payload.text;
}

async function textsOf(user: string, conversation: string, count: number): Promise<string[]> {
  const range = ["--conversation", conversation, "--after", "0", "--count", String(count)];
  const { stdout } = await cli(["tail", "--as", user, ...range, "--json"]);
  return linesOf(stdout).map((line) => JSON.parse(line).payload.text);
}

function writeConnection(connection: Record<string, string>): void {
  mkdirSync(join(folder, ".chat4all"), { recursive: true });
  writeFileSync(join(folder, ".chat4all/connection.json"), JSON.stringify(connection), { mode: 0o600 });
}
