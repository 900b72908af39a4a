// Help, usage errors, exit codes and output of the command line, without any server.
import { describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import manifest from "../../package.json" with { type: "json" };
import { emptyFolder, linesOf, runCli } from "../support/cli.ts";

const commands =
  "serve,migrate,doctor,token,send,tail,outbox,dead-letters,dead-letters replay,healthcheck,version,client create".split(
    ",",
  );
const nowhere = "http://127.0.0.1:1";
const client = { CHAT4ALL_URL: nowhere, CHAT4ALL_CLIENT_ID: "c_1", CHAT4ALL_CLIENT_SECRET: "secret" };

describe("help", () => {
  test("lists every command on standard output", async () => {
    const { code, stdout, stderr } = await runCli(["--help"]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    for (const command of commands) expect(stdout).toContain(`\n  ${command} `);
  });

  test.each(commands)("%s says how it is used, with examples", async (command) => {
    const { code, stdout, stderr } = await runCli([...command.split(" "), "--help"]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toContain(`Usage: chat4all ${command} `);
    expect(stdout).toContain("Options:\n");
    expect(stdout).toContain(`Examples:\n  chat4all ${command}`);
  });

  test("has no colours when it is not on a terminal", async () => {
    expect((await runCli(["--help"])).stdout).not.toContain("\x1b");
  });

  test("goes to standard error with exit code 2 when no command is given", async () => {
    const { code, stdout, stderr } = await runCli([]);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toContain("Usage: chat4all <command>");
  });
});

describe("a command line that is not known", () => {
  test.each([
    [["frobnicate"], 'chat4all: unknown command "frobnicate"; see `chat4all --help`'],
    [["constructor"], 'chat4all: unknown command "constructor"; see `chat4all --help`'],
    [["version", "--verbose"], "chat4all version: unknown option '--verbose'; see `chat4all version --help`"],
    [["version", "now"], 'chat4all version: unexpected "now"; see `chat4all version --help`'],
    [["serve", "--port", "http"], "--port takes a number from 0 to 65535"],
    [["serve", "--port", "65536"], "--port takes a number from 0 to 65535"],
    [["client", "create"], "--name is missing"],
    [["client", "create", "--name", "x", "--scope", "all"], 'unknown scope "all"'],
    [["send", "hello"], "--as is missing"],
    [["send", "--as", "a", "hello"], "either --to or --conversation"],
    [["send", "--as", "a", "--to", "b"], "either a text or --file"],
    [["send", "--as", "a", "--to", "b", "--file", "-", "--message-id", "x"], "--message-id is for one text"],
    [["tail"], "--as is missing"],
    [["tail", "--as", "a", "--after", "3"], "--after needs --conversation"],
    [["tail", "--as", "a", "--conversation", "x", "--after", "-1"], "--after"],
    [["token", "--expires-in", "60"], "--expires-in needs --user"],
    [["dead-letters", "replay"], "the id of a dead letter is missing"],
    [["dead-letters", "replay", "x", "--all"], "either an id, or --all, or --conversation"],
  ])("%j ends with 2 and one line", async (args, expected) => {
    const { code, stdout, stderr } = await runCli(args);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(linesOf(stderr)).toHaveLength(1);
    expect(stderr).toContain(expected);
  });
});

describe("a failure", () => {
  test("is one line on standard error and exit code 1", async () => {
    const { code, stdout, stderr } = await runCli(["token"], { env: client });
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(linesOf(stderr)).toEqual([expect.stringContaining(`chat4all token: no answer from ${nowhere}`)]);
  });

  test("is JSON with --json", async () => {
    const { stderr } = await runCli(["outbox", "--json"], { env: client });
    expect(JSON.parse(stderr)).toEqual({
      error: { code: "server_unreachable", message: expect.stringContaining(nowhere) },
    });
  });

  test("shows its stack with LOG_LEVEL=debug only", async () => {
    const env = { ...client, LOG_LEVEL: "debug" };
    expect((await runCli(["token"], { env })).stderr).toContain("src/cli/api.ts");
  });

  test("names every variable that is missing, in one line", async () => {
    const { code, stderr } = await runCli(["serve"]);
    expect(code).toBe(1);
    expect(linesOf(stderr)).toHaveLength(1);
    for (const name of ["DATABASE_URL", "REDIS_URL"]) expect(stderr).toContain(`${name} is not set`);
  });

  test("never shows the password of a database", async () => {
    const env = { DATABASE_URL: "postgres://user:hidden@127.0.0.1:1/chat" };
    const { code, stderr } = await runCli(["client", "create", "--name", "x"], { env });
    expect(code).toBe(1);
    expect(stderr).toContain("Postgres at 127.0.0.1:1/chat");
    expect(stderr).not.toContain("hidden");
  });
});

describe("connection.json", () => {
  test("is found in a folder above, and its URL is used", async () => {
    const folder = folderWith({ url: nowhere, client_id: "c_1", client_secret: "s" });
    const { stderr } = await runCli(["token"], { cwd: join(folder, "a/b") });
    expect(stderr).toContain(`no answer from ${nowhere}`);
  });

  test("gives way to the environment", async () => {
    const folder = folderWith({ url: "http://127.0.0.1:2", client_id: "c_1", client_secret: "s" });
    const { stderr } = await runCli(["token"], { cwd: folder, env: { CHAT4ALL_URL: nowhere } });
    expect(stderr).toContain(`no answer from ${nowhere}`);
  });

  test("keeps its secret from another host", async () => {
    const folder = folderWith({ url: nowhere, client_id: "c_1", client_secret: "s" });
    const { code, stderr } = await runCli(["token", "--url", "http://127.0.0.2:1"], { cwd: folder });
    expect(code).toBe(1);
    expect(stderr).toContain("CHAT4ALL_CLIENT_SECRET for http://127.0.0.2:1");
  });

  test("brings a warning when others can read it", async () => {
    const folder = folderWith({ url: nowhere, client_id: "c_1", client_secret: "s" }, 0o644);
    expect((await runCli(["token"], { cwd: folder })).stderr).toContain("others can read it");
  });

  test("is refused when it is not as `up` writes it", async () => {
    const folder = folderWith({ url: 5 });
    const { code, stderr } = await runCli(["token"], { cwd: folder });
    expect({ code, lines: linesOf(stderr).length }).toEqual({ code: 1, lines: 1 });
    expect(stderr).toContain("not a JSON object of strings");
  });

  test("fills what serve is not given, and serve says so", async () => {
    const folder = folderWith({ database_url: "postgres://127.0.0.1:1/x", redis_url: "redis://127.0.0.1:1" });
    const { stderr } = await runCli(["serve"], { cwd: folder });
    expect(stderr).toContain("DATABASE_URL, REDIS_URL from ");
    expect(stderr).toContain("KAFKA_BROKERS is not set");
  });
});

test("version prints the package's version, and JSON on demand", async () => {
  expect((await runCli(["version"])).stdout).toStartWith(`chat4all ${manifest.version} (`);
  expect(JSON.parse((await runCli(["version", "--json"])).stdout)).toMatchObject({
    version: manifest.version,
  });
});

test("healthcheck fails when nothing listens", async () => {
  const { code, stderr } = await runCli(["healthcheck"], { env: { PORT: "1", HOST: "0.0.0.0" } });
  expect(code).toBe(1);
  expect(stderr).toContain("nothing answers at http://127.0.0.1:1");
});

test("a reader that goes away is no error", async () => {
  const shell = `"${process.execPath}" src/main.ts --help | true; echo "\${PIPESTATUS[0]}"`;
  const child = Bun.spawn(["bash", "-c", shell], { stdout: "pipe", stderr: "pipe" });
  expect(await new Response(child.stdout).text()).toBe("0\n");
  expect(await new Response(child.stderr).text()).toBe("");
});

function folderWith(connection: object, mode = 0o600): string {
  const folder = emptyFolder();
  mkdirSync(join(folder, ".chat4all"));
  mkdirSync(join(folder, "a/b"), { recursive: true });
  writeFileSync(join(folder, ".chat4all/connection.json"), JSON.stringify(connection));
  chmodSync(join(folder, ".chat4all/connection.json"), mode);
  return folder;
}
