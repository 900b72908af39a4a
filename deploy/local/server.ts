/** Chat4All's own programs as `up` uses them: children that get their configuration by their environment. */
import { resolve } from "node:path";
import { OperatingError } from "../../src/model/errors.ts";
import type { Connection } from "./connection.ts";
import { runTool, type ServerProcess, startServerProcess, untilReady } from "./process.ts";

const program = [process.execPath, resolve(import.meta.dir, "../../src/main.ts")];

/** An OAuth client: who it is, and how it proves that. */
export interface Client {
  readonly client_id: string;
  readonly client_secret: string;
}

/** Runs migrations and creates topics. */
export async function migrate(connection: Connection, signal: AbortSignal): Promise<void> {
  await runProgram(["migrate"], connection, signal);
}

/** Starts a server that logs to `{dataDirectory}/server.log`, and resolves once it is ready; see `isReady`. */
export async function startServer(
  dataDirectory: string,
  connection: Connection,
  signal: AbortSignal,
): Promise<ServerProcess> {
  const server = await startServerProcess({
    name: "server",
    command: [...program, "serve"],
    directory: dataDirectory,
    stopSignal: "SIGTERM",
    env: environmentOf(connection),
  });
  const startedAt = Date.now();
  const probe = () => isReady(connection.url, Date.now() - startedAt > degradedMsMax);
  try {
    await untilReady(server, { name: "The server", deadlineMs: 60_000, signal, probe });
    return server;
  } catch (error) {
    await server.stop(5_000);
    throw error;
  }
}

/** After a crash, Kafka keeps the place of the router that is gone for ten seconds. */
const degradedMsMax = 15_000;

/** Whether the server takes requests and all its parts work; or, with `mayBeDegraded`, only the former. */
async function isReady(url: string, mayBeDegraded: boolean): Promise<boolean> {
  try {
    const response = await fetch(`${url}/readyz`, { signal: AbortSignal.timeout(2_000) });
    const { status } = (await response.json()) as { status: string };
    return response.ok && (mayBeDegraded || status === "ok");
  } catch {
    return false; // It does not listen yet.
  }
}

/** Makes a client with every scope. */
export async function createClient(connection: Connection, signal: AbortSignal): Promise<Client> {
  const scope = "admin messages:read messages:write";
  const output = await runProgram(
    ["client", "create", "--name", "up", "--scope", scope, "--json"],
    connection,
    signal,
  );
  return JSON.parse(output) as Client;
}

async function runProgram(
  args: readonly string[],
  connection: Connection,
  signal: AbortSignal,
): Promise<string> {
  const { code, stdout, output } = await runTool([...program, ...args], {
    env: environmentOf(connection),
    signal,
  });
  if (code === 0) return stdout;
  const message = `\`chat4all ${args[0]}\` failed:\n${output}`;
  throw new OperatingError("program_failed", { message });
}

function environmentOf(connection: Connection): Record<string, string | undefined> {
  return {
    ...process.env,
    PORT: new URL(connection.url).port,
    DATABASE_URL: connection.database_url,
    KAFKA_BROKERS: connection.kafka_brokers,
    REDIS_URL: connection.redis_url,
    JWT_SECRET: connection.jwt_secret,
  };
}
