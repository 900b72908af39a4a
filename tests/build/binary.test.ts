// The binary as an operator has it: alone in a folder, its sources gone, configured by the environment only.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { cp, mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import manifest from "../../package.json" with { type: "json" };
import { readConfig } from "../../src/config.ts";
import { connect } from "../support/database.ts";
import { callsOf } from "../support/server.ts";
import { until } from "../support/until.ts";

const root = resolve(import.meta.dir, "../..");
const name = `binary_${crypto.randomUUID().replaceAll("-", "")}`;
const databaseUrl = new URL(String(process.env["TEST_DATABASE_URL"]));
databaseUrl.pathname = `/${name}`;
const environment: Record<string, string> = {
  DATABASE_URL: databaseUrl.href,
  KAFKA_BROKERS: String(process.env["TEST_KAFKA_BROKERS"]),
  REDIS_URL: String(process.env["TEST_REDIS_URL"]),
  KAFKA_TOPIC_PREFIX: name,
  REDIS_PREFIX: `${name}:`,
  KAFKA_PARTITIONS: "4",
  JWT_SECRET: "a secret for tests only, of 32 characters or more",
  LOG_LEVEL: "error",
};
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "chat4all-binary-"));
  await buildFromCopy(join(folder, "sources"), join(folder, "chat4all"));
  await onServer(`create database ${name}`);
}, 120_000);

afterAll(async () => {
  await onServer(`drop database if exists ${name} with (force)`);
  await rm(folder, { recursive: true, force: true });
});

test("says which version and commit it was built from", async () => {
  expect(await run("version", "--json")).toMatchObject({ version: manifest.version, commit: "0123456789ab" });
});

test("lists its commands", async () => {
  expect(await run("--help")).toContain("migrate");
});

test("migrates, serves, routes a message to its end, and drains", async () => {
  expect(await run("migrate")).toContain("applied tables");
  await using node = start("serve", "--port", "0");
  const url = await addressOf(node);
  const { call, makeGroup, post } = callsOf(url, readConfig(environment));

  const conversationId = await makeGroup(["bob"]);
  expect(await post(conversationId, "hello")).toMatchObject({ status: 202, body: { sequence_number: 1 } });
  await until(async () => {
    const message = await call("GET", `/v1/conversations/${conversationId}/messages/1`);
    return message.body.state === "delivered";
  }, "the message is delivered");
  const viewer = await call("GET", "/docs/viewer.js", undefined, { as: null });
  expect(viewer.status).toBe(200);
  expect(viewer.body.length).toBeGreaterThan(1_000_000);

  node.kill("SIGTERM");
  expect(await node.exited).toBe(0);
}, 60_000);

/** Builds in a copy of the sources with the packages that run in production, and removes the copy. */
async function buildFromCopy(copy: string, outfile: string): Promise<void> {
  await mkdir(copy);
  for (const part of ["src", "workers", "sql", "deploy", "package.json", "bun.lock"]) {
    await cp(join(root, part), join(copy, part), { recursive: true });
  }
  for (const args of [
    ["install", "--production", "--frozen-lockfile"],
    ["deploy/build.ts", "--outfile", outfile],
  ]) {
    const env = { ...process.env, BUILD_COMMIT: "0123456789ab" };
    const { success, stderr } = Bun.spawnSync([process.execPath, ...args], { cwd: copy, env });
    if (!success) throw new Error(`${args.join(" ")}: ${stderr.toString()}`);
  }
  await rm(copy, { recursive: true });
}

function start(...args: string[]) {
  return Bun.spawn([join(folder, "chat4all"), ...args], { cwd: tmpdir(), env: environment, stderr: "pipe" });
}

/** What a command prints, parsed if it is JSON. */
async function run(...args: string[]): Promise<unknown> {
  const child = start(...args);
  const [output, talk] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ]);
  if ((await child.exited) !== 0) throw new Error(talk);
  return args.includes("--json") ? JSON.parse(output) : output;
}

/** Where a node listens, as it says on standard error. */
async function addressOf(node: ReturnType<typeof start>): Promise<string> {
  const decoder = new TextDecoder();
  let said = "";
  for await (const chunk of node.stderr) {
    said += decoder.decode(chunk, { stream: true });
    const url = /^Chat4All is at (\S+)$/m.exec(said)?.[1];
    if (url !== undefined) return url;
  }
  throw new Error(`it did not start: ${said}`);
}

async function onServer(statement: string): Promise<void> {
  await using server = connect(String(process.env["TEST_DATABASE_URL"]));
  await server.query(statement);
}
