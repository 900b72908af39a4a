// What is done to Postgres, Redis and the brokers.
import { RedisClient } from "bun";
import type { FaultGroup, FaultKind } from "../faults.ts";
import type { StagedServer } from "../servers.ts";
import type { StageParts } from "../stage.ts";

/** A short absence, and one that others have to notice. */
const shortMs = [1_000, 6_000] as const;
const longMs = [1_000, 30_000] as const;
/** Done at once: the plan gives it a moment, in which nothing else is done to that server. */
const momentMs = [200, 1_000] as const;

/** Killed, paused, restarted, and its connections ended. */
export function postgresFaults({ postgres, database }: StageParts): FaultKind[] {
  const endConnections = async () => {
    await database.query(
      "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'chat4all%'",
    );
  };
  return [
    ...serverFaults(postgres, "postgres", "postgres"),
    {
      ...outline("postgres", "postgres", "postgres", "connections ended"),
      durationMs: momentMs,
      begin: endConnections,
      end: nothing,
    },
  ];
}

/** Killed (it comes back empty), paused (it hangs without closing), restarted, and emptied while it runs. */
export function redisFaults({ redis, redisUrl }: StageParts): FaultKind[] {
  const empty = async () => {
    const client = new RedisClient(redisUrl, { connectionTimeout: 2_000, autoReconnect: false });
    try {
      await client.send("FLUSHALL", []);
    } finally {
      client.close();
    }
  };
  return [
    ...serverFaults(redis, "redis", "redis"),
    {
      ...outline("redis", "redis", "redis", "emptied"),
      durationMs: momentMs,
      begin: empty,
      end: nothing,
    },
  ];
}

/** Of all brokers one at a time. */
export function kafkaFaults({ brokers }: StageParts): FaultKind[] {
  return brokers.flatMap((broker) => serverFaults(broker, "kafka", "kafka"));
}

function serverFaults(server: StagedServer, group: FaultGroup, target: string): FaultKind[] {
  const kind = (
    how: string,
    durationMs: FaultKind["durationMs"],
    begin: () => Promise<void>,
    end: () => Promise<void>,
  ): FaultKind => ({ ...outline(server.name, group, target, how), durationMs, begin, end });
  return [
    kind("kill -9", shortMs, () => server.stop("SIGKILL"), server.start),
    kind("restart", shortMs, () => server.stop(), server.start),
    kind(
      "pause",
      longMs,
      async () => server.pause(),
      async () => server.resume(),
    ),
  ];
}

function outline(name: string, group: FaultGroup, target: string, how: string) {
  return { name: `${name} ${how}`, group, what: `${group} ${how}`, target };
}

async function nothing(): Promise<void> {
  // It was over when it had begun.
}
