/**
 * Programs that come from the system's package manager: found where they are, installed where that is allowed
 * without a question (root, or sudo without a password), else asked for in one line.
 */
import { join } from "node:path";
import { OperatingError } from "../../src/model/errors.ts";
import { runTool } from "./process.ts";

/** What is needed from the system: a Redis server, a Java runtime of version 17 or newer, Maven, Python with venv. */
export type Program = "redis" | "java" | "maven" | "python";

interface PackageManager {
  readonly command: string;
  readonly update?: readonly string[];
  readonly install: readonly string[];
  readonly asRoot: boolean;
  /** Names of the package in the order to try them: releases of a system differ. */
  readonly packages: Readonly<Record<Program, readonly string[]>>;
}

const packageManagers: readonly PackageManager[] = [
  {
    command: "apt-get",
    update: ["update"],
    install: ["install", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120"],
    asRoot: true,
    packages: {
      redis: ["redis-server"],
      java: ["openjdk-17-jre-headless", "default-jre-headless"],
      maven: ["maven"],
      python: ["python3-venv"],
    },
  },
  {
    command: "dnf",
    install: ["install", "-y"],
    asRoot: true,
    packages: {
      redis: ["redis", "valkey-compat-redis"],
      java: ["java-17-openjdk-headless", "java-21-openjdk-headless", "java-latest-openjdk-headless"],
      maven: ["maven"],
      python: ["python3"],
    },
  },
  {
    command: "apk",
    install: ["add", "--no-cache"],
    asRoot: true,
    packages: { redis: ["redis"], java: ["openjdk17-jre-headless"], maven: ["maven"], python: ["python3"] },
  },
  {
    command: "brew",
    install: ["install"],
    asRoot: false,
    packages: { redis: ["redis"], java: ["openjdk@17"], maven: ["maven"], python: ["python3"] },
  },
];

/** What a step needs that may take long: where to tell of it, and how to be called off. */
interface StepOptions {
  readonly report: (line: string) => void;
  readonly signal?: AbortSignal | undefined;
}

/**
 * The path of a program, installed if it was missing.
 * @throws {OperatingError} `program_missing` with one line that says what to install, where it cannot be done here.
 */
export async function requireProgram(program: Program, options: StepOptions): Promise<string> {
  const found = findProgram(program);
  if (found !== undefined) return found;
  // One after the other: package managers hold a lock.
  const install = installing.then(() => installProgram(program, options));
  installing = install.catch(() => undefined);
  await install;
  const installed = findProgram(program);
  if (installed === undefined)
    throw programMissing(`${titles[program]} was installed but is not found on the PATH.`);
  return installed;
}

const titles: Readonly<Record<Program, string>> = {
  redis: "Redis",
  java: "Java 17 or newer",
  maven: "Maven",
  python: "Python 3.11 or newer with venv",
};

let installing: Promise<unknown> = Promise.resolve();
let isIndexUpdated = false;

function findProgram(program: Program): string | undefined {
  switch (program) {
    case "redis":
      return Bun.which("redis-server") ?? undefined;
    case "maven":
      return Bun.which("mvn") ?? undefined;
    case "java":
      return javaCandidates().find(isJava17);
    case "python":
      return pythonCandidates().find(hasVenv);
    default:
      return program satisfies never;
  }
}

/** Homebrew leaves its Java off the PATH on purpose. */
function javaCandidates(): string[] {
  const homes = [process.env["JAVA_HOME"], "/opt/homebrew/opt/openjdk@17", "/usr/local/opt/openjdk@17"];
  const programs = homes.map((home) => (home === undefined ? null : Bun.which(join(home, "bin/java"))));
  return [programs[0], Bun.which("java"), ...programs.slice(1)].filter((path) => typeof path === "string");
}

function isJava17(path: string): boolean {
  const version = /version "(\d+)/.exec(Bun.spawnSync([path, "-version"]).stderr.toString())?.[1];
  return version !== undefined && Number(version) >= 17;
}

/** That of the system may have what another one on the PATH lacks. */
function pythonCandidates(): string[] {
  const programs = [Bun.which("python3"), Bun.which("python3", { PATH: "/usr/bin" })];
  return programs.filter((path) => path !== null);
}

/** Debian splits venv off: `ensurepip` is what is missing then. */
function hasVenv(path: string): boolean {
  const program = "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))";
  return Bun.spawnSync([path, "-c", program]).exitCode === 0;
}

async function installProgram(program: Program, options: StepOptions): Promise<void> {
  const manager = packageManagers.find(({ command }) => Bun.which(command) !== null);
  if (manager === undefined)
    throw programMissing(`${titles[program]} is missing: install it, then run this again.`);
  const prefix = await rootPrefix(manager);
  const [firstName = program] = manager.packages[program];
  if (prefix === undefined) {
    const command = `${manager.asRoot ? "sudo " : ""}${manager.command} ${manager.install[0]} ${firstName}`;
    throw programMissing(
      `${titles[program]} is missing: install it with \`${command}\`, then run this again.`,
    );
  }
  // Called off in the middle, the package manager gets a SIGINT: it stops a download, but finishes what it unpacks.
  const run = (args: readonly string[]) =>
    runTool([...prefix, manager.command, ...args], {
      env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" },
      signal: options.signal,
    });
  options.report(`${titles[program]}: missing, installing it with ${manager.command}`);
  if (manager.update !== undefined && !isIndexUpdated) await run(manager.update);
  isIndexUpdated = true;
  let output = "";
  for (const name of manager.packages[program]) {
    const attempt = await run([...manager.install, name]);
    if (attempt.code === 0) return;
    output = attempt.output;
  }
  throw programMissing(`${manager.command} could not install ${firstName}: ${output.split("\n").at(-1)}`);
}

function programMissing(message: string): OperatingError {
  return new OperatingError("program_missing", { message });
}

/** What must stand before the package manager's command, or nothing if it would ask for a password. */
async function rootPrefix(manager: PackageManager): Promise<readonly string[] | undefined> {
  const isRoot = process.getuid?.() === 0;
  if (!manager.asRoot) return isRoot ? undefined : [];
  if (isRoot) return [];
  if (Bun.which("sudo") === null) return undefined;
  const { code } = await runTool(["sudo", "-n", "true"]);
  return code === 0 ? ["sudo", "-n", "--preserve-env=DEBIAN_FRONTEND"] : undefined;
}
