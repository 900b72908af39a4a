// Beside the walk, on a thread of its own: opens what the Redis backfill needs, and closes it at the stop.
import { startBackfill } from "../src/backfill/backfill.ts";
import { allChannel, publishAnnouncements, publishMessage } from "../src/deliver/bus.ts";
import { openRecentCache } from "../src/deliver/recent-cache.ts";
import { runWorker } from "../src/platform/channel.ts";
import { openPostgres, openPostgresPulse } from "../src/platform/postgres.ts";
import { openRedis } from "../src/platform/redis.ts";

const connectionsMax = 2;

runWorker("redis-backfill", async ({ config, log, watchdogs, report }) => {
  const pulse = openPostgresPulse(config.DATABASE_URL);
  const postgres = openPostgres({
    url: config.DATABASE_URL,
    pulse,
    connectionsMax,
    applicationName: "chat4all redis-backfill",
    connectTimeoutSeconds: 2,
    statementTimeoutMs: 10_000,
  });
  const redis = openRedis({ url: config.REDIS_URL, prefix: config.REDIS_PREFIX, log });
  const recent = openRecentCache(redis);
  const backfill = startBackfill({
    postgres,
    redis,
    log,
    watchdogs,
    report,
    announce: (moved) => publishAnnouncements(redis, config.KAFKA_PARTITIONS, moved),
    askForStates: () => publishMessage(redis, allChannel, { kind: "epoch" }),
    noteRecent: (moved, items) => recent.write(moved.conversation_id, moved.sequence_number, items),
  });
  return {
    async stop() {
      await backfill.stop();
      pulse.close();
      await Promise.all([redis.close(), postgres.close()]);
    },
  };
});
