/**
 * Apache Kafka's jars, fetched by Maven from whichever repository it is set up to use. They come into one folder for
 * all that is started from this clone, which appears only when it is complete.
 */
import { existsSync, mkdirSync, renameSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";
import { stripVTControlCharacters } from "node:util";
import { OperatingError } from "../../src/model/errors.ts";
import { requireProgram } from "./packages.ts";
import { runTool } from "./process.ts";
import type { ServerOptions } from "./services.ts";

/** What it takes to start a broker: a Java runtime, and Kafka's jars as a class path. */
export interface KafkaInstallation {
  readonly java: string;
  readonly classPath: string;
}

/** Finds the installation, or makes it: 54 MB. */
export async function installedKafka(options: ServerOptions): Promise<KafkaInstallation> {
  const java = await requireProgram("java", options);
  if (!existsSync(folder)) await install(options);
  return { java, classPath: join(folder, "*") };
}

/** The version in pom.xml. */
const folder = resolve(import.meta.dir, "../../.chat4all/kafka-4.3.1");

async function install(options: ServerOptions): Promise<void> {
  const maven = await requireProgram("maven", options);
  // Of its own for each process: two may install at the same time, and the first one wins.
  const unfinished = `${folder}.unfinished-${process.pid}`;
  mkdirSync(unfinished, { recursive: true });
  let files = 0;
  options.report("Kafka: downloading 4.3.1 (54 MB)");
  try {
    const pom = join(import.meta.dir, "kafka/pom.xml");
    const command = [maven, "-B", "--strict-checksums", "-f", pom, "dependency:copy-dependencies"];
    const { code, output } = await runTool([...command, `-DoutputDirectory=${unfinished}`], {
      signal: options.signal,
      onLine: (line) => {
        if (line.includes("Downloaded from"))
          options.report(`Kafka: downloading 4.3.1 (54 MB), ${++files} files so far`);
      },
    });
    if (code !== 0)
      throw new OperatingError("start_failed", {
        message: `Maven could not fetch Kafka:\n${errorLines(output)}`,
      });
    if (!existsSync(folder)) renameSync(unfinished, folder);
  } finally {
    rmSync(unfinished, { recursive: true, force: true });
  }
}

function errorLines(output: string): string {
  const lines = stripVTControlCharacters(output).split("\n");
  const errors = lines.filter((line) => line.startsWith("[ERROR]"));
  return errors.slice(0, 3).join("\n");
}
