/**
 * `bun run up`: everything that it takes to try Chat4All on one's own machine. It starts what is not given by an
 * address (Postgres, Kafka, Redis), migrates, starts the server, makes a first client, and shows one message's walk.
 * It stays until it is interrupted, and then stops what it started, in the opposite order.
 *
 * Everything that it keeps is in `.chat4all/`.
 */
import { randomBytes } from "node:crypto";
import { resolve } from "node:path";
import { parseArgs } from "node:util";
import { apiOf } from "../../src/cli/api.ts";
import { OperatingError } from "../../src/model/errors.ts";
import { claimDirectory, InUse } from "./claim.ts";
import { type Connection, readConnection, writeConnection } from "./connection.ts";
import { showWalk } from "./demo.ts";
import { isUnderNpx, onInterruption, untilAborted } from "./interruption.ts";
import { isPortFree } from "./ports.ts";
import { stopLeftovers } from "./process.ts";
import { createClient, migrate, startServer } from "./server.ts";
import { type LocalServices, startServices } from "./services.ts";
import { emphasise, showProgress } from "./terminal.ts";

const dataDirectory = resolve(import.meta.dir, "../../.chat4all");

/** How this was called, for the lines that are there to be pasted: with Bun, or with Node's npx only. */
const bunRun = isUnderNpx ? "npx -y bun@1.4.5 run" : "bun run";

const usage = `Usage: ${bunRun} up [--port N] [--no-demo]

  --port N     the server's port (3000)
  --no-demo    send no message from one demo user to another

DATABASE_URL, KAFKA_BROKERS and REDIS_URL name servers to use instead of starting them.
All other settings of the server are taken from the environment, too: see docs/operations.md.`;

const signal = onInterruption(() => console.log("\nStopping what was started."));

process.exit(await main());

async function main(): Promise<number> {
  const options = readOptions(process.argv.slice(2));
  if (typeof options === "number") return options;
  try {
    await up(options);
    return 0;
  } catch (error) {
    if (!(error instanceof OperatingError)) throw error;
    if (error.code === "interrupted") return 130;
    console.error(error instanceof InUse ? inUseLine(error.pid) : error.message);
    return 1;
  }
}

interface Options {
  readonly port: number;
  readonly withDemo: boolean;
}

/** The options, or the exit code when there is nothing else to do. */
function readOptions(args: string[]): Options | number {
  try {
    const { values } = parseArgs({
      args,
      options: {
        port: { type: "string", default: "3000" },
        "no-demo": { type: "boolean" },
        help: { type: "boolean" },
      },
    });
    if (values.help) {
      console.log(usage);
      return 0;
    }
    const port = Number(values.port);
    if (!Number.isInteger(port) || port < 1 || port > 65_535)
      throw new Error(`--port ${values.port} is no port`);
    return { port, withDemo: !values["no-demo"] };
  } catch (error) {
    console.error(`${(error as Error).message}\n\n${usage}`);
    return 2;
  }
}

function inUseLine(pid: number): string {
  const address = readConnection(dataDirectory)?.url ?? "not started yet";
  return `Chat4All is up in this folder already: process ${pid}, ${address}`;
}

/** Starts everything, and resolves when it was interrupted after that and all is stopped. */
async function up({ port, withDemo }: Options): Promise<void> {
  await using started = new AsyncDisposableStack();
  started.defer(claimDirectory(dataDirectory));
  await stopLeftovers(dataDirectory);
  if (!(await isPortFree(port))) {
    const message = `Port ${port} is taken: choose another one with \`${bunRun} up --port ${port + 1}\``;
    throw new OperatingError("port_taken", { message });
  }

  const progress = showProgress();
  // An empty variable counts as unset, as it does for the server.
  const given = {
    databaseUrl: process.env["DATABASE_URL"] || undefined,
    kafkaBrokers: process.env["KAFKA_BROKERS"] || undefined,
    redisUrl: process.env["REDIS_URL"] || undefined,
  };
  const services = await startServices({ dataDirectory, given, report: progress.report, signal });
  started.defer(() => services.stop());
  const connection = connectionTo(services, port);
  writeConnection(dataDirectory, connection);
  progress.report("Chat4All: creating tables and topics");
  await migrate(connection, signal);
  progress.report("Chat4All: starting");
  const server = await startServer(dataDirectory, connection, signal);
  started.defer(() => server.stop(20_000));
  progress.report(`Chat4All: ready on port ${port}`);
  progress.end();

  const connected = await withClient(connection);
  if (withDemo) await showWalk(connected, signal).catch(reportFailedDemo);
  showNextSteps(connected);
  await Promise.race([untilAborted(signal), server.exited]);
  if (signal.aborted) return;
  throw new OperatingError("server_died", { message: `The server has died:\n${server.lastOutput(20)}` });
}

/** Everything is up nevertheless, for who looks for the reason. */
function reportFailedDemo(error: unknown): void {
  if (!(error instanceof OperatingError) || error.code === "interrupted") throw error;
  console.error(`\n${error.message}`);
}

/** How to reach everything. Secrets and the client stay what they were, so that tokens outlive a restart. */
function connectionTo(services: LocalServices, port: number): Connection {
  const earlier = readConnection(dataDirectory);
  return {
    url: `http://127.0.0.1:${port}`,
    client_id: earlier?.client_id ?? "",
    client_secret: earlier?.client_secret ?? "",
    jwt_secret: process.env["JWT_SECRET"] || earlier?.jwt_secret || randomBytes(32).toString("hex"),
    database_url: services.databaseUrl,
    kafka_brokers: services.kafkaBrokers,
    redis_url: services.redisUrl,
  };
}

/** The connection with a client that this database knows: that of the last time, else a new one. */
async function withClient(connection: Connection): Promise<Connection> {
  if (await isClientKnown(connection)) return connection;
  const client = await createClient(connection, signal);
  const connected = { ...connection, client_id: client.client_id, client_secret: client.client_secret };
  writeConnection(dataDirectory, connected);
  console.log(
    `\nYour first client, with every scope. Its secret is shown only now; .chat4all/connection.json keeps it.`,
  );
  console.log(
    `  client_id      ${emphasise(client.client_id)}\n  client_secret  ${emphasise(client.client_secret)}`,
  );
  return connected;
}

async function isClientKnown(connection: Connection): Promise<boolean> {
  if (connection.client_id === "") return false;
  return await apiOf(connection)
    .clientToken()
    .then(
      () => true,
      () => false,
    );
}

function showNextSteps(connection: Connection): void {
  console.log(`
Chat4All is up at ${emphasise(connection.url)}   (Ctrl-C stops it)
Documentation at  ${emphasise(`${connection.url}/docs`)}`);
  console.log(`
Watch in a second terminal what reaches grace, and write to her from a third:
  ${bunRun} chat4all tail --as grace
  ${bunRun} chat4all send --as ada --to grace "How are you?"`);
}
