/**
 * `bun run chaos --seconds N --seed S`: starts Postgres, Redis, Kafka and instances of the server of its own, lets
 * clients work on them, breaks one thing after the other, heals all, and says whether anything was lost, doubled, out
 * of order, or stuck. Exit code 0: nothing was; 1: something was, or the run did not come to its end; 2: usage.
 */
import { rm } from "node:fs/promises";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { onInterruption } from "../../deploy/local/interruption.ts";
import { drawSeed } from "../../deploy/local/options.ts";
import { emphasise } from "../../deploy/local/terminal.ts";
import { OperatingError } from "../../src/model/errors.ts";
import { showRun } from "./progress.ts";
import { isGreen, reportOf } from "./report.ts";
import { run } from "./run.ts";
import { openStage } from "./stage.ts";

const help = `bun run chaos [--seconds 60] [--seed N] [options]

  --seconds N      how long clients work and faults strike (60, at least 20)
  --seed N         repeats a run's plan; without it one is drawn and shown
  --instances N    of the server: 2 to 5 (2)
  --brokers 1|3    of Kafka; topics have three replicas on three (1)
  --rate N         messages a second when all is well (1500)
  --faults A,B     only of these groups: instance, worker, postgres, redis, kafka, network, clock, disk; or none
  --json FILE      writes the outcome there, too
  --markdown       writes the tables for a document
  --keep           leaves data and logs in .chat4all/chaos
  --help           this text
`;

const groups = ["instance", "worker", "postgres", "redis", "kafka", "network", "clock", "disk", "none"];
const root = resolve(import.meta.dir, "../..");
const data = join(root, ".chat4all/chaos");

process.exit(await main(process.argv.slice(2)));

async function main(args: string[]): Promise<number> {
  const options = readOptions(args);
  if (typeof options === "string") {
    console.error(`${options}\n\n${help}`);
    return 2;
  }
  if (options.help) {
    console.log(help);
    return 0;
  }
  const signal = onInterruption(() => console.error("\nInterrupted: stopping everything."));
  const progress = showRun(process.stderr);
  try {
    const result = await runOnStage(options, progress.report, signal);
    progress.end();
    if (options.json !== undefined) await Bun.write(options.json, jsonOf(result, options));
    const command = `bun run chaos ${commandOf(options)}`;
    console.log(reportOf(result, { markdown: options.markdown, command }));
    const isAllWell = isGreen(result);
    const sum = result.judgements.reduce((total, { violations }) => total + violations, 0);
    if (!options.markdown)
      console.log(isAllWell ? emphasise("No violation.", "green") : emphasise(`${sum} violations.`, "red"));
    return isAllWell ? 0 : 1;
  } catch (error) {
    progress.end();
    if (!signal.aborted && !(error instanceof OperatingError)) throw error;
    console.error(signal.aborted ? "There is no verdict." : (error as Error).message);
    return signal.aborted ? 130 : 1;
  } finally {
    if (!options.keep) await rm(data, { recursive: true, force: true });
  }
}

async function runOnStage(
  { seconds, seed, instances, brokers, rate, faults }: Options,
  report: (line: string) => void,
  signal: AbortSignal,
) {
  report(`seed: ${seed}`);
  await using stage = await openStage({ instances, brokers, dataDirectory: data, report, signal });
  const kinds = stage.faults.filter(({ group }) => faults === undefined || faults.includes(group));
  return await run({ stage, seed, seconds, traffic: { rate, mix: "load" }, kinds, report, signal });
}

interface Options {
  seconds: number;
  seed: number;
  instances: number;
  brokers: 1 | 3;
  rate: number;
  faults: string[] | undefined;
  json: string | undefined;
  markdown: boolean;
  keep: boolean;
  help: boolean;
}

/** Answers what is wrong with them as a text. */
function readOptions(args: string[]): Options | string {
  let values: Record<string, string | boolean | undefined>;
  try {
    ({ values } = parseArgs({
      args,
      options: {
        seconds: { type: "string" },
        seed: { type: "string" },
        instances: { type: "string" },
        brokers: { type: "string" },
        rate: { type: "string" },
        faults: { type: "string" },
        json: { type: "string" },
        markdown: { type: "boolean" },
        keep: { type: "boolean" },
        help: { type: "boolean" },
      },
    }));
  } catch (error) {
    return (error as Error).message;
  }
  const faulty: string[] = [];
  const whole = (name: string, fallback: number, least: number, most: number): number => {
    const text = values[name];
    const number = text === undefined ? fallback : /^\d+$/.test(String(text)) ? Number(text) : Number.NaN;
    if (!(number >= least && number <= most))
      faulty.push(`--${name} is a whole number from ${least} to ${most}`);
    return number;
  };
  const brokers = whole("brokers", 1, 1, 3);
  if (brokers === 2) faulty.push("--brokers is 1 or 3");
  const faults = values["faults"] === undefined ? undefined : String(values["faults"]).split(",");
  const unknown = faults?.filter((group) => !groups.includes(group)) ?? [];
  if (unknown.length > 0) faulty.push(`--faults does not know ${unknown.join(", ")}`);
  const options: Options = {
    seconds: whole("seconds", 60, 20, 86_400),
    seed: whole("seed", drawSeed(), 0, 2 ** 32 - 1),
    instances: whole("instances", 2, 2, 5),
    brokers: brokers === 3 ? 3 : 1,
    rate: whole("rate", 1_500, 1, 100_000),
    faults,
    json: values["json"] === undefined ? undefined : resolve(String(values["json"])),
    markdown: values["markdown"] === true,
    keep: values["keep"] === true,
    help: values["help"] === true,
  };
  return faulty.length > 0 ? faulty.join("\n") : options;
}

function commandOf({ seconds, seed, instances, brokers, rate, faults }: Options): string {
  const parts = [`--seconds ${seconds}`, `--seed ${seed}`];
  if (instances !== 2) parts.push(`--instances ${instances}`);
  if (brokers !== 1) parts.push(`--brokers ${brokers}`);
  if (rate !== 1_500) parts.push(`--rate ${rate}`);
  if (faults !== undefined) parts.push(`--faults ${faults.join(",")}`);
  return parts.join(" ");
}

function jsonOf(result: Awaited<ReturnType<typeof run>>, options: Options): string {
  const { seconds, seed, instances, brokers, rate } = options;
  return `${JSON.stringify({ seconds, seed, instances, brokers, rate, ...result }, null, 2)}\n`;
}
