/**
 * `bun run test`: starts servers that are empty and its own, runs the checks and then every test against them, and
 * says in one line at the end how many passed and failed. Arguments go to `bun test` (`bun run test -- tests/ingest`).
 *
 * `bun deploy/local/test.ts --services-only [--data DIR]` only starts the servers, prints where they are as lines for
 * a shell, and stays until it is interrupted: for who runs `bun test` again and again.
 */
import { join, resolve } from "node:path";
import { parseArgs, stripVTControlCharacters } from "node:util";
import { OperatingError } from "../../src/model/errors.ts";
import { claimDirectory, InUse } from "./claim.ts";
import { onInterruption, untilAborted } from "./interruption.ts";
import { type LocalServices, removeData, startServices } from "./services.ts";
import { emphasise, showProgress } from "./terminal.ts";

const root = resolve(import.meta.dir, "../..");

/** For one test; Bun takes no such limit from bunfig.toml. */
const testMsMax = 30_000;

/** How much of the end of a child's output is kept: its summary is much shorter. */
const summaryCharactersMax = 4_000;

const signal = onInterruption(() => console.error("\nStopping the servers."));

process.exit(await main(process.argv.slice(2)));

async function main(args: string[]): Promise<number> {
  const isServicesOnly = args.includes("--services-only");
  try {
    if (!isServicesOnly)
      return await withServices(join(root, ".chat4all/test"), (services) => runAll(services, args));
    const { values } = parseArgs({
      args,
      options: { "services-only": { type: "boolean" }, data: { type: "string" } },
    });
    return await withServices(resolve(values.data ?? join(root, ".chat4all/test")), serveUntilInterrupted);
  } catch (error) {
    if (!(error instanceof OperatingError)) throw error;
    if (error.code === "interrupted") return 130;
    console.error(
      error instanceof InUse ? `Tests run in this folder already (process ${error.pid}).` : error.message,
    );
    return 1;
  }
}

/** Runs `work` with servers that start empty, and stops them however it ends. */
async function withServices<T>(
  dataDirectory: string,
  work: (services: LocalServices) => Promise<T>,
): Promise<T> {
  const release = claimDirectory(dataDirectory);
  // Progress goes to stderr: stdout is for the result.
  const progress = showProgress(process.stderr);
  try {
    await removeData(dataDirectory);
    const options = { dataDirectory, report: progress.report, signal, forTests: true };
    const services = await startServices(options);
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

async function serveUntilInterrupted(services: LocalServices): Promise<number> {
  for (const [name, value] of Object.entries(testEnvironment(services)))
    console.log(`export ${name}='${value}'`);
  await untilAborted(signal);
  return 0;
}

/** What the checks and the tests read from their environment. */
function testEnvironment(services: LocalServices): Record<string, string> {
  return {
    TEST_DATABASE_URL: services.databaseUrl,
    TEST_KAFKA_BROKERS: services.kafkaBrokers,
    TEST_REDIS_URL: services.redisUrl,
  };
}

async function runAll(services: LocalServices, args: readonly string[]): Promise<number> {
  const env = { ...process.env, ...testEnvironment(services) };
  const isChecked = (await runChild(["deploy/local/check.ts"], env)).code === 0;
  signal.throwIfAborted();
  const { code, output } = await runChild(["test", "--parallel=2", `--timeout=${testMsMax}`, ...args], env);
  signal.throwIfAborted();

  const counts = summaryOf(output);
  if (!isChecked) console.log(emphasise("\nThe checks failed: see above the tests.", "red"));
  if (counts === undefined)
    console.log(emphasise(`\nThe test runner ended with code ${code} and no summary.`, "red"));
  const { passed, failed, skipped } = counts ?? { passed: 0, failed: 0, skipped: 0 };
  console.log(`\n${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`);
  return isChecked && code === 0 && failed === 0 && passed > 0 ? 0 : 1;
}

/** Runs Bun with `args`, shows what it writes, and gives the end of that. */
async function runChild(
  args: readonly string[],
  env: Record<string, string | undefined>,
): Promise<{ code: number; output: string }> {
  const color = process.stderr.isTTY ? { FORCE_COLOR: "1" } : {};
  const child = Bun.spawn([process.execPath, ...args], {
    cwd: root,
    env: { ...env, ...color },
    stdin: "ignore",
    stdout: "inherit",
    stderr: "pipe",
  });
  const interrupt = () => child.kill("SIGTERM");
  signal.addEventListener("abort", interrupt);
  const decoder = new TextDecoder();
  let output = "";
  for await (const chunk of child.stderr) {
    process.stderr.write(chunk);
    output = (output + decoder.decode(chunk, { stream: true })).slice(-summaryCharactersMax);
  }
  const code = await child.exited;
  signal.removeEventListener("abort", interrupt);
  return { code, output };
}

/**
 * Bun's own summary, the last thing that it writes: lines like ` 12 pass`. Its JUnit report is no source, because it
 * leaves out the files that could not be loaded.
 */
function summaryOf(output: string): { passed: number; failed: number; skipped: number } | undefined {
  const text = stripVTControlCharacters(output);
  const summary = text.slice(text.lastIndexOf("\n\n"));
  if (!/^Ran \d+ tests? across/m.test(summary)) return undefined;
  const count = (word: string) => Number(new RegExp(`^ *(\\d+) ${word}$`, "m").exec(summary)?.[1] ?? 0);
  return { passed: count("pass"), failed: count("fail"), skipped: count("skip") + count("todo") };
}
