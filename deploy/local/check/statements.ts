/** Every statement in sql/ against the schema: Postgres parses and analyses it, without running it. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import openDriver from "postgres";

/** Answers one line for each file that Postgres would refuse: `file:line: message`. */
export async function refusedStatements(root: string, url: string): Promise<string[]> {
  const driver = openDriver(url, { max: 1, onnotice: () => undefined });
  try {
    const faults = statementFiles(root).map(async (file) => {
      const text = readFileSync(join(root, file), "utf8");
      try {
        // As the server sends it, so that two statements in a file are refused too.
        await driver.unsafe(text).describe();
        return [];
      } catch (error) {
        if (!(error instanceof openDriver.PostgresError)) throw error;
        return [`${file}:${lineAt(text, error.position)}: ${error.message}`];
      }
    });
    return (await Promise.all(faults)).flat();
  } finally {
    await driver.end({ timeout: 5 });
  }
}

/** All statements that the server sends, by their path from the root: neither the migrations nor the dump. */
function statementFiles(root: string): string[] {
  const files = [...new Bun.Glob("sql/*/**/*.sql").scanSync(root)];
  return files.filter((file) => !file.startsWith("sql/migrations/")).toSorted();
}

/** The line of a position as Postgres counts it, in characters from 1. */
function lineAt(text: string, position: string | undefined): number {
  return text.slice(0, Number(position ?? 1) - 1).split("\n").length;
}
