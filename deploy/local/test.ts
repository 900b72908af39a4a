/**
 * `bun run test`: the checks, then every test against real servers of its own, and one line at the end that says how
 * many passed and failed. Arguments go to `bun test` (`bun run test -- tests/ingest`).
 *
 * `bun deploy/local/test.ts --services-only [--data DIR]` only starts the servers, prints where they are as lines for
 * a shell, and stays until it is interrupted: for who runs `bun test` again and again.
 */
import { existsSync, readFileSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { claimDirectory, InUse } from "./claim.ts";
import { Advice } from "./process.ts";
import { type LocalServices, startServices } from "./services.ts";
import { showProgress } from "./terminal.ts";

const root = resolve(import.meta.dir, "../..");

const interrupted = new AbortController();
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.on(signal, () => interrupted.abort(new Advice("interrupted")));
}

process.exit(await main(process.argv.slice(2)));

async function main(args: string[]): Promise<number> {
  try {
    if (!args.includes("--services-only")) return await runTests(args);
    const { values } = parseArgs({ args, options: { "services-only": { type: "boolean" }, data: { type: "string" } } });
    return await serveUntilInterrupted(resolve(values.data ?? join(root, ".chat4all/test")));
  } catch (error) {
    if (error instanceof InUse) console.error(`Tests run in this folder already (process ${error.pid}).`);
    else if (error instanceof Advice) console.error(error.message);
    else throw error;
    return 1;
  }
}

async function serveUntilInterrupted(dataDirectory: string): Promise<number> {
  await withServices(dataDirectory, async (services) => {
    for (const [name, value] of Object.entries(testEnvironment(services))) console.log(`export ${name}='${value}'`);
    await untilInterrupted();
  });
  return 0;
}

/** Runs `work` with servers that start empty, and stops them however it ends. */
async function withServices<T>(dataDirectory: string, work: (services: LocalServices) => Promise<T>): Promise<T> {
  const release = claimDirectory(dataDirectory);
  try {
    // Progress goes to stderr: stdout is for the result.
    const progress = showProgress(process.stderr);
    const services = await startServices({
      dataDirectory,
      report: progress.report,
      signal: interrupted.signal,
      forTests: true,
    });
    progress.end();
    try {
      return await work(services);
    } finally {
      await services.stop();
    }
  } finally {
    release();
  }
}

/** What the tests read from their environment. */
function testEnvironment(services: LocalServices): Record<string, string> {
  return {
    TEST_DATABASE_URL: services.databaseUrl,
    TEST_KAFKA_BROKERS: services.kafkaBrokers,
    TEST_REDIS_URL: services.redisUrl,
  };
}

function untilInterrupted(): Promise<void> {
  const { signal } = interrupted;
  return new Promise((done) => {
    if (signal.aborted) done();
    else signal.addEventListener("abort", () => done());
  });
}

async function runTests(_args: string[]): Promise<number> {
  return 1;
}
