// One node: opens what its roles need, in order, and closes it in the opposite order. The main thread serves HTTP and
// sockets; the workers run on threads of their own.
import { Elysia } from "elysia";
import { type Api, openApi } from "./api.ts";
import type { Config } from "./config.ts";
import { healthRoutes, type Readiness } from "./edge/health.ts";
import { collectorDefaults } from "./ingest/collector.ts";
import { OperatingError } from "./model/errors.ts";
import { type Log, openLog } from "./platform/log.ts";
import { checkSchema } from "./platform/migrate.ts";
import { isConnectionFailure, openPostgres, openPostgresPulse, type Postgres } from "./platform/postgres.ts";
import type { Pulse } from "./platform/postgres-pulse.ts";
import { type SuperviseOptions, startWorkers } from "./supervise.ts";
import { build } from "./version.ts";

/** A node that listens. */
export interface Server {
  /** Where it answers, e.g. http://127.0.0.1:3000. */
  url: string;
  /** Not ready, finish what is in flight, close sockets with 1012, hand shards over; by DRAIN_MS. */
  drain(): Promise<void>;
}

/** So long a draining node still answers, with /readyz 503, for load balancers to notice. */
const noticeMs = 500;

/**
 * Starts the roles of a configuration; resolves when it listens. Rejects with an OperatingError that says what is
 * missing. `programOf` puts other programs in place of the workers, as tests do that make them fail.
 */
export async function serve(
  config: Config,
  { programOf }: Pick<SuperviseOptions, "programOf"> = {},
): Promise<Server> {
  const log = openLog("main", config.LOG_LEVEL);
  const instanceId = crypto.randomUUID();
  const isApi = config.ROLES.includes("api");
  const usesKafka = config.ROLES.includes("outbox") || config.ROLES.includes("router");
  // On a connection of its own: a busy node is not a sick one.
  const pulse = openPostgresPulse(config.DATABASE_URL);
  const postgres = openPool(config, pulse, "chat4all", config.DATABASE_CONNECTIONS);
  const ingestPostgres = openPool(config, pulse, "chat4all ingest", collectorDefaults.batchesMax);
  await checkSchema(postgres).catch(explainAbsence);
  const workers = await startWorkers({
    config,
    instanceId,
    log,
    onGiveUp: (name) => giveUp(log, name),
    ...(programOf && { programOf }),
  });

  let isDraining = false;
  const readiness: Readiness = {
    isDraining: () => isDraining,
    postgres: () => (pulse.isAway() ? "down" : "up"),
    others: () => ({
      ...(api === null ? {} : { redis: api.redisState() }),
      ...(usesKafka ? { kafka: workers.away().has("kafka") ? "degraded" : "up" } : {}),
      ...workers.states(),
    }),
  };
  const api: Api | null = isApi
    ? openApi({ config, instanceId, log, postgres, ingestPostgres, workers, readiness })
    : null;
  const app = api?.app ?? new Elysia({ serve: { reusePort: false } }).use(healthRoutes(readiness));
  const url = listen(app, config);
  log.info({ url, roles: config.ROLES, version: build.version }, "listening");

  return {
    url,
    async drain() {
      isDraining = true;
      log.info("draining");
      api?.closeStreams();
      await Bun.sleep(noticeMs);
      await stopListening(app, config.DRAIN_MS / 3);
      await workers.stop(config.DRAIN_MS / 3);
      await api?.close();
      pulse.close();
      await Promise.all([ingestPostgres.close(), postgres.close()]);
      log.info("drained");
    },
  };
}

function openPool(config: Config, pulse: Pulse, applicationName: string, connectionsMax: number): Postgres {
  return openPostgres({
    url: config.DATABASE_URL,
    pulse,
    connectionsMax,
    applicationName,
    connectTimeoutSeconds: 2,
    statementTimeoutMs: 10_000,
  });
}

function explainAbsence(cause: unknown): never {
  if (!isConnectionFailure(cause)) throw cause;
  const message = `Postgres does not answer at DATABASE_URL (${(cause as Error).message}); start it, or correct the address`;
  throw new OperatingError("database_unavailable", { message, cause });
}

/** What can listen: the whole API, or health alone. */
interface Listener {
  listen(address: { port: number; hostname: string }): unknown;
  stop(closeActiveConnections?: boolean): Promise<unknown>;
  readonly server: { port?: number | undefined } | null;
}

function listen(app: Listener, config: Config): string {
  try {
    app.listen({ port: config.PORT, hostname: config.HOST });
  } catch (cause) {
    if ((cause as { code?: string }).code !== "EADDRINUSE") throw cause;
    const message = `port ${config.PORT} of ${config.HOST} is taken; choose another with PORT or --port`;
    throw new OperatingError("port_taken", { message, cause });
  }
  const host = config.HOST.includes(":") ? `[${config.HOST}]` : config.HOST;
  return `http://${host}:${app.server?.port}`;
}

// Requests under way may finish; what takes longer than the deadline is cut off.
async function stopListening(app: Listener, deadlineMs: number): Promise<void> {
  const finished = await Promise.race([app.stop().then(() => true), Bun.sleep(deadlineMs).then(() => false)]);
  if (!finished) await app.stop(true);
}

// The supervisor of the process acts on its exit; what was acknowledged is in Postgres.
function giveUp(log: Log, worker: string): void {
  log.fatal({ worker }, "the worker keeps failing; this process ends");
  process.exit(1);
}
