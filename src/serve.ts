// One node: opens what it needs, in order, and closes it in the opposite order. The main thread serves HTTP and
// sockets; the workers of its roles run on threads of their own.
import { createApp } from "./app.ts";
import type { Config } from "./config.ts";
import { openConnections } from "./deliver/connections.ts";
import { openHub } from "./deliver/hub.ts";
import { openPresence } from "./deliver/presence.ts";
import { openRecentCache } from "./deliver/recent-cache.ts";
import { openEdge } from "./edge/edge.ts";
import type { Health } from "./edge/health.ts";
import { openRevocations } from "./identity/revocation.ts";
import { openTokens } from "./identity/tokens.ts";
import { collectorDefaults, openCollector } from "./ingest/collector.ts";
import { OperatingError } from "./model/errors.ts";
import { type Log, openLog } from "./platform/log.ts";
import { checkSchema } from "./platform/migrate.ts";
import { openPostgres, type Postgres } from "./platform/postgres.ts";
import { openRedis } from "./platform/redis.ts";
import { startWorkers } from "./supervise.ts";
import { build } from "./version.ts";
import { announcer, streamDependencies } from "./wiring.ts";

/** A node that listens. */
export interface Server {
  /** Where it answers, e.g. http://127.0.0.1:3000. */
  url: string;
  /** Not ready, finish what is in flight, close sockets with 1012, hand shards over; by DRAIN_MS. */
  drain(): Promise<void>;
}

const postgresCheckMs = 1000;
const ingestConnections = collectorDefaults.batchesMax;

/** Starts the roles of a configuration; resolves when it listens. Rejects with an OperatingError that says what is missing. */
export async function serve(config: Config): Promise<Server> {
  const log = openLog("main", config.LOG_LEVEL);
  const instanceId = crypto.randomUUID();
  const postgres = openPool(config, "chat4all", config.DATABASE_CONNECTIONS);
  const ingestPool = openPool(config, "chat4all ingest", ingestConnections);
  await checkSchema(postgres);

  const redis = openRedis({ url: config.REDIS_URL, prefix: config.REDIS_PREFIX, log });
  const hub = openHub({
    postgres,
    redis,
    log,
    instanceId,
    shards: config.KAFKA_PARTITIONS,
    pollIntervalMs: config.LIVE_POLL_MS,
  });
  const workers = await startWorkers({ config, instanceId, log, onGiveUp: (name) => giveUp(log, name) });
  const announce = announcer(hub, workers, config.KAFKA_PARTITIONS);
  const collector = openCollector(ingestPool, collectorDefaults, announce.committed);
  const tokens = openTokens({
    secret: config.JWT_SECRET,
    jwksUrl: config.JWT_JWKS_URL,
    issuer: config.JWT_ISSUER,
    audience: config.JWT_AUDIENCE,
  });
  const revocations = openRevocations(postgres);
  const connections = openConnections({
    isRevoked: (caller) => revocations.isRevoked(caller),
    onRevoked: (listener) => hub.onRevoked(listener),
  });
  let isDraining = false;

  const app = createApp({
    config,
    edge: openEdge(tokens, revocations, log),
    collector,
    changes: { postgres, onEvent: announce.event },
    conversations: {
      postgres,
      recent: openRecentCache(redis),
      channels: config.CHANNELS,
      partitions: config.KAFKA_PARTITIONS,
      onEvent: announce.event,
      onReceipt: announce.receipt,
    },
    identity: {
      postgres,
      tokens,
      accessSeconds: config.ACCESS_TOKEN_SECONDS,
      refreshSeconds: config.REFRESH_TOKEN_SECONDS,
      onRevoked: (tokenIds) => hub.revoke(tokenIds),
    },
    streams: {
      hub,
      presence: openPresence(hub),
      connections,
      ...streamDependencies({ tokens, revocations, collector, postgres, announce }),
    },
    readiness: {
      isDraining: () => isDraining,
      postgres: () => postgresHealth(postgres),
      others: () => ({ redis: redis.state(), ...workers.states() }),
    },
  });
  const url = listen(app, config);
  log.info({ url, roles: config.ROLES, version: build.version }, "listening");

  return {
    url,
    async drain() {
      isDraining = true;
      log.info("draining");
      connections.closeAll();
      await app.stop();
      await workers.stop(config.DRAIN_MS / 2);
      await hub.close();
      await redis.close();
      await Promise.all([ingestPool.close(), postgres.close()]);
      log.info("drained");
    },
  };
}

function openPool(config: Config, applicationName: string, connectionsMax: number): Postgres {
  return openPostgres({
    url: config.DATABASE_URL,
    connectionsMax,
    applicationName,
    connectTimeoutSeconds: 2,
    statementTimeoutMs: 10_000,
  });
}

async function postgresHealth(postgres: Postgres): Promise<Health> {
  const answered = postgres.query("select 1").then(
    () => true,
    () => false,
  );
  return (await Promise.race([answered, Bun.sleep(postgresCheckMs).then(() => false)])) ? "up" : "down";
}

// The supervisor of the process acts on its exit; what was acknowledged is in Postgres.
function giveUp(log: Log, worker: string): void {
  log.fatal({ worker }, "the worker keeps failing; this process ends");
  process.exit(1);
}

function listen(app: ReturnType<typeof createApp>, config: Config): string {
  try {
    app.listen({ port: config.PORT, hostname: config.HOST });
  } catch (cause) {
    if ((cause as { code?: string }).code !== "EADDRINUSE") throw cause;
    const message = `port ${config.PORT} of ${config.HOST} is taken; choose another with PORT or --port`;
    throw new OperatingError("port_taken", { message, cause });
  }
  return `http://${config.HOST}:${app.server?.port}`;
}
