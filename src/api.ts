// The role api: what accepts messages over HTTP and sockets, and delivers them live.
import { createApp } from "./app.ts";
import type { Config } from "./config.ts";
import { openConnections } from "./deliver/connections.ts";
import { openHub } from "./deliver/hub.ts";
import { openPresence } from "./deliver/presence.ts";
import { openRecentCache } from "./deliver/recent-cache.ts";
import { openEdge } from "./edge/edge.ts";
import type { Health, Readiness } from "./edge/health.ts";
import { openRateLimits } from "./edge/rate-limits.ts";
import { openRevocations } from "./identity/revocation.ts";
import { openTokens } from "./identity/tokens.ts";
import { collectorDefaults, openCollector } from "./ingest/collector.ts";
import type { Log } from "./platform/log.ts";
import type { Postgres } from "./platform/postgres.ts";
import { boundQueries } from "./platform/postgres-bound.ts";
import { openRedis } from "./platform/redis.ts";
import { announcer, streamDependencies } from "./wiring.ts";

/** The parts of a running API that its process looks after. */
export interface Api {
  app: ReturnType<typeof createApp>;
  redisState(): Health;
  /** Closes sockets and event streams so that they resume elsewhere (1012), and opens no new ones. */
  closeStreams(): void;
  close(): Promise<void>;
}

/** What the API takes from its process. */
export interface ApiSurroundings {
  config: Config;
  instanceId: string;
  log: Log;
  postgres: Postgres;
  /** A pool for batches alone, so that no reader stands before a commit. */
  ingestPostgres: Postgres;
  workers: { wake(shards: Iterable<number>): void };
  readiness: Readiness;
}

/** Queries that are under way or wait for a connection; beyond that requests get 503. */
const queriesMax = 1000;

/** Opens the API; it does not listen yet. */
export function openApi(surroundings: ApiSurroundings): Api {
  const { config, instanceId, log, workers, readiness } = surroundings;
  const postgres = boundQueries(surroundings.postgres, queriesMax);
  const shards = config.KAFKA_PARTITIONS;
  const redis = openRedis({ url: config.REDIS_URL, prefix: config.REDIS_PREFIX, log });
  const hub = openHub({ postgres, redis, log, instanceId, shards, pollIntervalMs: config.LIVE_POLL_MS });
  const announce = announcer(hub, workers, shards);
  const collector = openCollector(surroundings.ingestPostgres, collectorDefaults, announce.committed);
  const tokens = openTokens({
    secret: config.JWT_SECRET,
    jwksUrl: config.JWT_JWKS_URL,
    issuer: config.JWT_ISSUER,
    audience: config.JWT_AUDIENCE,
  });
  const revocations = openRevocations(postgres);
  const limits = openRateLimits(redis, {
    user: config.RATE_LIMIT_USER_PER_SECOND,
    conversation: config.RATE_LIMIT_CONVERSATION_PER_SECOND,
  });
  const connections = openConnections({
    isRevoked: (caller) => revocations.isRevoked(caller),
    onRevoked: (listener) => hub.onRevoked(listener),
  });
  const admission = { isQueueFull: collector.isFull, eventStreams: () => connections.eventStreams };

  const presence = openPresence({ hub, redis, log });
  const app = createApp({
    config,
    edge: openEdge(tokens, revocations, admission, log),
    limits,
    collector,
    changes: { postgres, onEvent: announce.event },
    conversations: {
      postgres,
      recent: openRecentCache(redis),
      limits,
      channels: config.CHANNELS,
      partitions: shards,
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
      presence,
      connections,
      ...streamDependencies({ tokens, revocations, collector, limits, postgres }),
    },
    readiness,
  });

  return {
    app,
    redisState: () => hub.state(),
    closeStreams: () => connections.closeAll(),
    async close() {
      presence.close();
      await hub.close();
      await redis.close();
    },
  };
}
