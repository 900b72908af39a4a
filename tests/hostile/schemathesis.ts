// Schemathesis over the OpenAPI document of a node: `bun run schemathesis`, and a short run among the tests. It is a
// Python program that comes into a folder of its own when it is first asked for.
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { drawSeed, readOptions } from "../../deploy/local/options.ts";
import { requireProgram } from "../../deploy/local/packages.ts";
import { runTool } from "../../deploy/local/process.ts";
import { type HostileNode, startHostileNode, withServices } from "./node.ts";

/** What came of a run. */
export interface SchemathesisOutcome {
  /** Nothing was found, and every call that is not left out was tried. */
  isPassed: boolean;
  operations: { selected: number; tested: number };
  cases: number;
  /** What it wrote: each finding with a command that shows it again. */
  output: string;
}

/** How much is tried: `examples` are random requests for each call, beside those that cover its schema. */
interface RunSettings {
  seed: number;
  examples: number;
}

const here = resolve(import.meta.dir, "schemathesis");
const requirements = join(here, "requirements.txt");
const workersCount = 1;

// What is off, and why.
const checksOff = [
  // Whether a request is taken depends on more than its schema: on what is stored (a number beyond the last one, a
  // message_id that was used), on the configuration (channels), on two values together (after and before).
  "positive_data_acceptance",
  // A method that a path does not have is 404, as a path that is not there.
  "unsupported_method",
];
// An event stream does not end, so that no answer is ever complete; the property tests have it.
const callsOff = "/events$";

/** Runs it against a node with everything in it that a caller needs. */
export async function runSchemathesis(
  node: HostileNode,
  { seed, examples }: RunSettings,
  report: (line: string) => void = () => undefined,
): Promise<SchemathesisOutcome> {
  const python = await installedPython(report);
  const directory = mkdtempSync(join(tmpdir(), "chat4all-schemathesis-"));
  const results = join(directory, "report.json");
  const options = {
    "--phases": "coverage,fuzzing",
    "--max-examples": examples,
    "--seed": seed,
    "--workers": workersCount,
    "--exclude-checks": checksOff.join(","),
    "--exclude-path-regex": callsOff,
    "--request-timeout": 20,
    "--generation-database": "none",
    "--suppress-health-check": "all",
    "--warnings": "off",
    "--report": "json",
    "--report-json-path": results,
  };
  const command = [python, "-m", "schemathesis.cli", "run", `${node.url}/openapi.json`];
  command.push("--continue-on-failure", ...Object.entries(options).flat().map(String));
  try {
    report("Schemathesis: running");
    const { code, output } = await runTool(command, {
      // It would read a configuration from its working directory.
      cwd: directory,
      env: {
        ...process.env,
        PYTHONPATH: here,
        PYTHONDONTWRITEBYTECODE: "1",
        SCHEMATHESIS_HOOKS: "hooks",
        HOSTILE_FACTS: JSON.stringify(await factsFor(node)),
      },
    });
    const { operations, test_cases } = existsSync(results)
      ? JSON.parse(readFileSync(results, "utf8"))
      : { operations: { selected: 0, tested: 0 }, test_cases: { generated: 0 } };
    const isPassed = code === 0 && operations.tested === operations.selected && operations.tested > 0;
    return { isPassed, operations, cases: test_cases.generated, output };
  } finally {
    rmSync(directory, { recursive: true });
  }
}

async function factsFor(node: HostileNode) {
  const conversationId = await node.makeGroup(["bob"]);
  const lastSequenceNumber = 20;
  for (let number = 1; number <= lastSequenceNumber; number += 1)
    await node.post(conversationId, `text ${number}`);
  const aDay = { expiresInSeconds: 86_400 };
  return {
    client: await node.makeClient(["admin", "messages:read", "messages:write"]),
    adminToken: await node.token("operator", { scope: "admin", ...aDay }),
    memberToken: await node.token("alice", aDay),
    conversationId,
    lastSequenceNumber,
  };
}

/** The Python that has what requirements.txt says; made if it is not there. */
async function installedPython(report: (line: string) => void): Promise<string> {
  const hash = Bun.hash(readFileSync(requirements)).toString(16);
  const folder = resolve(import.meta.dir, `../../.chat4all/schemathesis-${hash}`);
  const installed = join(folder, "bin/python");
  if (existsSync(installed)) return installed;
  const python = await requireProgram("python", { report });
  mkdirSync(resolve(folder, ".."), { recursive: true });
  // Of its own for each process: two may install at the same time, and the first one wins.
  const unfinished = `${folder}.unfinished-${process.pid}`;
  report("Schemathesis: installing");
  try {
    await mustRun([python, "-m", "venv", unfinished]);
    const pip = [join(unfinished, "bin/python"), "-m", "pip", "--disable-pip-version-check", "-q"];
    await mustRun([...pip, "install", "--no-input", "--only-binary", ":all:", "-r", requirements]);
    if (!existsSync(folder)) renameSync(unfinished, folder);
  } finally {
    rmSync(unfinished, { recursive: true, force: true });
  }
  return installed;
}

async function mustRun(command: string[]): Promise<void> {
  const { code, output } = await runTool(command);
  if (code !== 0) throw new Error(`${command.slice(1).join(" ")} failed:\n${output}`);
}

const help = `Usage: bun run schemathesis [--examples 200] [--seed N]

Schemathesis over the OpenAPI document of a node, with at most so many examples for each call.

The exit code is 1 when anything was found, or a call was not tried.`;

async function main(): Promise<number> {
  const { examples, seed } = readOptions(help, { examples: 200, seed: drawSeed() });
  return await withServices(async () => {
    await using node = await startHostileNode("api");
    const outcome = await runSchemathesis(node, { seed, examples }, (line) => console.error(line));
    console.log(outcome.output);
    const { selected, tested } = outcome.operations;
    const verdict = outcome.isPassed ? "passed" : "FAILED";
    console.log(`${verdict}: seed ${seed}, ${outcome.cases} requests to ${tested} of ${selected} calls`);
    return outcome.isPassed && (await node.stop()) === 0 ? 0 : 1;
  });
}

if (import.meta.main) process.exit(await main());
