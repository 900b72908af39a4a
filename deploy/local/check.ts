/**
 * `bun run check`: everything that can be told of the code without running it. One line for each check, what a failed
 * one found below it, and exit code 1 if any failed. `bun run check --write` first puts in order what can be:
 * formatting, the order of imports, and sql/schema.sql.
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { OperatingError } from "../../src/model/errors.ts";
import { openForCheck, withMigratedDatabase } from "./check/database.ts";
import { dumpSchema } from "./check/dump-schema.ts";
import { refusedStatements } from "./check/statements.ts";
import { untidyFiles } from "./check/tidy.ts";
import { runTool } from "./process.ts";
import { emphasise } from "./terminal.ts";

const root = resolve(import.meta.dir, "../..");
const schemaFile = join(root, "sql/schema.sql");

// What was started ends with an interrupt too, and only then this program.
const interrupted = new AbortController();
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.once(signal, () => interrupted.abort(new OperatingError("interrupted")));
}

const { values } = parseArgs({ options: { write: { type: "boolean", default: false } } });
process.exit((await main(values.write)) ? 0 : 1);

async function main(isWriting: boolean): Promise<boolean> {
  if (isWriting) await tool("biome", "check", "--write")();
  const database = askDatabase();
  if (isWriting) writeFileSync(schemaFile, (await database).dump);

  const outcomes = await Promise.all([
    report("types", tool("tsc", "--noEmit", "--pretty", "false")),
    report("lint", tool("oxlint", "--format", "unix")),
    report("format", tool("biome", "check")),
    report("dead code", tool("knip", "--no-progress")),
    report("tidy", async () => untidyFiles(root).join("\n")),
    report("SQL", async () => (await database).refused.join("\n")),
    report("schema", async () => schemaDifference((await database).dump)),
  ]);
  return outcomes.every(Boolean);
}

/** Prints how a check ended. It answers what is wrong; nothing is "". */
async function report(name: string, check: () => Promise<string>): Promise<boolean> {
  const startedAt = performance.now();
  const faults = await check().catch((error: unknown) => String(error));
  const seconds = ((performance.now() - startedAt) / 1_000).toFixed(1);
  const verdict = faults === "" ? emphasise("ok", "green") : emphasise("failed", "red");
  console.log(`${name.padEnd(10)} ${verdict} ${emphasise(`${seconds} s`, "dim")}`);
  if (faults !== "") console.log(faults.replaceAll(/^/gm, "  "));
  return faults === "";
}

/** A check by a program of node_modules: what it writes when it ends with an error. */
function tool(name: string, ...args: string[]): () => Promise<string> {
  return async () => {
    const program = join(root, "node_modules/.bin", name);
    const { signal } = interrupted;
    const { code, output } = await runTool([process.execPath, program, ...args], { cwd: root, signal });
    return code === 0 ? "" : output.trim() || `${name} ended with code ${code}`;
  };
}

async function askDatabase(): Promise<{ refused: string[]; dump: string }> {
  return await withMigratedDatabase({ root, signal: interrupted.signal }, async (url) => {
    await using database = openForCheck(url);
    return { refused: await refusedStatements(root, url), dump: await dumpSchema(database) };
  });
}

function schemaDifference(dump: string): string {
  const written = existsSync(schemaFile) ? readFileSync(schemaFile, "utf8").split("\n") : [];
  const made = dump.split("\n");
  const index = made.findIndex((line, position) => line !== written[position]);
  if (index === -1 && written.length === made.length) return "";
  const line = index === -1 ? made.length : index;
  return [
    `sql/schema.sql is not what the migrations make (bun run check --write), from line ${line + 1} on:`,
    `- ${written[line] ?? ""}`,
    `+ ${made[line] ?? ""}`,
  ].join("\n");
}
