// After the last fault everything must come to rest by itself. What has not by then is named.
import { Kafka, logLevel } from "kafkajs";
import { type Config, topicNames } from "../../src/config.ts";
import type { Postgres } from "../../src/platform/postgres.ts";
import type { Clients } from "./clients/clients.ts";
import type { Track } from "./history.ts";
import type { Instance } from "./node.ts";

/** What must come to rest. */
export interface Settling {
  config: Config;
  postgres: Postgres;
  instances: readonly Pick<Instance, "name" | "url">[];
  clients: Pick<Clients, "settled" | "deliveries" | "otherCalls">;
  tracks: readonly Track[];
  /** Told once a second what is not at rest yet. */
  report(line: string): void;
  signal: AbortSignal | undefined;
  withinMs: number;
}

const stepMs = 500;
const answerMsMax = 2_000;

/** Resolves at once when all is at rest, or when the time is over with what is not. */
export async function settle(settling: Settling): Promise<string[]> {
  const endMs = performance.now() + settling.withinMs;
  for (;;) {
    settling.signal?.throwIfAborted();
    const restless = await lookAround(settling);
    if (restless.length === 0) {
      const lags = await consumerLags(settling.config);
      if (lags.length === 0) return [];
      restless.push(...lags);
    }
    if (performance.now() > endMs) return restless;
    settling.report(`settling: ${restless.length} not at rest yet, such as ${restless[0]}`);
    await Bun.sleep(stepMs);
  }
}

async function lookAround({ postgres, instances, clients, tracks }: Settling): Promise<string[]> {
  const restless: string[] = [];
  if (!clients.settled()) {
    restless.push(`clients: ${clients.deliveries.unsettled} messages are not known to be stored or not`);
  }
  const [database, ...states] = await Promise.all([
    databaseRest(postgres, tracks).catch((error: unknown) => [`Postgres does not answer: ${String(error)}`]),
    ...instances.map(readiness),
  ]);
  return [...restless, ...database, ...states.flat()];
}

async function databaseRest(postgres: Postgres, tracks: readonly Track[]): Promise<string[]> {
  const restless: string[] = [];
  const waiting = await postgres.query<{ shard: number; events: number; oldest: number }>(
    `select shard, sum(cardinality(sequence_numbers))::bigint as events,
      extract(epoch from clock_timestamp() - min(enqueued_at))::float8 as oldest
     from outbox group by shard order by shard`,
  );
  for (const { shard, events, oldest } of waiting) {
    restless.push(`shard ${shard}: ${events} events in the outbox, the oldest for ${oldest.toFixed(1)} s`);
  }
  const leases = await postgres.query<{ shard: number }>(
    `select l.shard from shard_leases l left join pollers p on p.id = l.owner and p.expires_at > clock_timestamp()
     where p.id is null or l.expires_at <= clock_timestamp() order by l.shard`,
  );
  for (const { shard } of leases) restless.push(`shard ${shard}: no living instance has its lease`);
  const heads = await postgres.query<{ id: string; shard: number; last: number; routed: number }>(
    `select c.id, c.shard, c.last_sequence_number as last, coalesce(r.sequence_number, 0) as routed
     from conversations c left join routed r on r.conversation_id = c.id`,
  );
  const lastOf = new Map(heads.map(({ id, last }) => [id, last]));
  for (const { id, shard, last, routed } of heads) {
    if (routed < last) restless.push(`partition ${shard}: ${id} is routed up to ${routed} of ${last}`);
  }
  for (const track of tracks) {
    const last = lastOf.get(track.conversationId) ?? 0;
    const seen = track.numbers.at(-1) ?? track.after;
    if (track.isOver || seen >= last) continue;
    restless.push(`${track.reader} at ${track.instance}: has ${seen} of ${last} of ${track.conversationId}`);
  }
  return restless;
}

async function readiness({ name, url }: Settling["instances"][number]): Promise<string[]> {
  try {
    const answer = await fetch(`${url}/readyz`, {
      signal: AbortSignal.timeout(answerMsMax),
      keepalive: false,
    });
    const { status, dependencies } = (await answer.json()) as { status: string; dependencies: object };
    return status === "ok" ? [] : [`${name}: ${status}, ${JSON.stringify(dependencies)}`];
  } catch (error) {
    return [`${name}: does not answer /readyz: ${String(error)}`];
  }
}

/** What the router's group has not committed yet. */
async function consumerLags(config: Config): Promise<string[]> {
  const kafka = new Kafka({ brokers: config.KAFKA_BROKERS, clientId: "chaos", logLevel: logLevel.NOTHING });
  const admin = kafka.admin();
  const topic = topicNames(config).outbox;
  try {
    await admin.connect();
    const ends = await admin.fetchTopicOffsets(topic);
    const groups = await admin.fetchOffsets({
      groupId: `${config.KAFKA_TOPIC_PREFIX}.router`,
      topics: [topic],
    });
    const committed = new Map(
      groups[0]?.partitions.map(({ partition, offset }) => [partition, Number(offset)]),
    );
    return ends.flatMap(({ partition, high }) => {
      const lag = Number(high) - Math.max(0, committed.get(partition) ?? 0);
      return lag > 0 ? [`partition ${partition}: the router has not committed ${lag} records`] : [];
    });
  } catch (error) {
    return [`Kafka does not answer: ${String(error)}`];
  } finally {
    await admin.disconnect().catch(() => undefined);
  }
}
