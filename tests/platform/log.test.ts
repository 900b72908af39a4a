// What the log keeps to itself.
import { expect, test } from "bun:test";

const program = `
  const { openLog } = await import(${JSON.stringify(import.meta.resolve("../../src/platform/log.ts"))});
  const row = { code: "23514", detail: "Failing row contains (a payload).", where: "JSON data: a payload" };
  openLog("main", "info").error({ err: Object.assign(new Error("a check failed"), row) }, "request failed");
`;

test("logs an error of Postgres without the row that it quotes", () => {
  const { stdout } = Bun.spawnSync([process.execPath, "-e", program]);
  const line = stdout.toString();
  expect(JSON.parse(line)).toMatchObject({ err: { code: "23514", message: "a check failed" } });
  expect(line).not.toContain("payload");
});
