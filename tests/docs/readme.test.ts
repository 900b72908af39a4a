// The README's examples, as they stand there: in a folder with what `up` leaves, against a running node.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { writeConnection } from "../../deploy/local/connection.ts";
import { emptyFolder } from "../support/cli.ts";
import { startServer, type TestServer } from "../support/server.ts";

const readme = readFileSync(resolve(import.meta.dir, "../../README.md"), "utf8");
const folder = emptyFolder();
let server: TestServer;

beforeAll(async () => {
  server = await startServer();
  const client = await server.makeClient(["admin", "messages:read", "messages:write"]);
  mkdirSync(join(folder, ".chat4all"));
  writeConnection(join(folder, ".chat4all"), {
    url: server.url,
    client_id: client.id,
    client_secret: client.secret,
    jwt_secret: "",
    database_url: "",
    kafka_brokers: "",
    redis_url: "",
  });
});

afterAll(async () => {
  await server[Symbol.asyncDispose]();
});

test("the lines of curl post a message and show it on the event stream", async () => {
  const output = await run(["bash", "-c", block("curl")]);
  expect(output).toContain('"state":"enqueued"');
  expect(output).toMatch(/^event: ?message\.created$/m);
  expect(output).toContain("Hello from curl");
});

test("the lines of JavaScript get a message over a socket, and end", async () => {
  writeFileSync(join(folder, "hello.mjs"), block("javascript"));
  expect(await run([process.execPath, "hello.mjs"])).toBe("alice: Hello from JavaScript\n");
});

test("the two commands are the package's scripts", () => {
  const { scripts } = JSON.parse(readFileSync(resolve(import.meta.dir, "../../package.json"), "utf8"));
  for (const [, name] of readme.matchAll(/bun@1\.4\.5 run ([a-z0-9]+)|bun run ([a-z0-9]+)/g)) {
    if (name !== undefined) expect(Object.keys(scripts)).toContain(name);
  }
});

/** The code that follows the mark `<!-- test: name -->`. */
function block(name: string): string {
  const code = new RegExp(`<!-- test: ${name} -->\n\`\`\`\\w+\n(.*?)\`\`\``, "s").exec(readme)?.[1];
  if (code === undefined) throw new Error(`README.md has no block marked "test: ${name}"`);
  return code;
}

async function run(command: string[]): Promise<string> {
  const child = Bun.spawn(command, { cwd: folder, stdout: "pipe", stderr: "pipe" });
  const [stdout, stderr] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ]);
  expect(stderr).toBe("");
  return stdout;
}
