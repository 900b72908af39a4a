// A shard's rows come in, oldest first; their records leave for the outbox topic, then the rows are removed.
// Guaranteed: a row is removed only after Kafka has acknowledged its records, so a crash anywhere repeats, never
// loses; and since whoever publishes a shard begins with its oldest rows, first occurrences are always in order.
import parkRecordSql from "../../sql/outbox/park-record.sql" with { type: "text" };
import readRowsSql from "../../sql/outbox/read-rows.sql" with { type: "text" };
import removeRowsSql from "../../sql/outbox/remove-rows.sql" with { type: "text" };
import type { TopicNames } from "../config.ts";
import type { EventRow } from "../model/event.ts";
import { publishDeadLetter, publishOrPark } from "../platform/dead-letters.ts";
import type { KafkaPublisher, KafkaRecord } from "../platform/kafka.ts";
import { encodeEvent } from "../platform/kafka-event.ts";
import type { Log } from "../platform/log.ts";
import { firstRow, type Postgres } from "../platform/postgres.ts";
import type { Watchdog } from "../platform/watchdog.ts";
import type { ShardLease } from "./leases.ts";

/** What a drain works with. */
export interface DrainTools {
  postgres: Postgres;
  publisher: KafkaPublisher;
  topics: TopicNames;
  pollerId: string;
  log: Log;
}

/** A message that waits in the outbox, as it is read. */
interface OutboxMessage extends EventRow {
  row_id: number;
  traceparent: string | null;
  channels: string[];
}

// One batch of each shard is all that a poller holds in memory, and while Kafka is away it holds just these.
const batchRowsMax = 1_000;
const batchBytesMax = 1024 * 1024;

/**
 * Publishes a shard's rows until there are none, or `stopping` aborts (then after the batch in hand), or the lease
 * is over. Rejects with the driver's error when Postgres fails; what was in hand is then published again.
 */
export async function drainShard(
  tools: DrainTools,
  lease: ShardLease,
  watchdog: Watchdog,
  stopping: AbortSignal,
): Promise<void> {
  while (lease.isHeld() && !stopping.aborted) {
    const messages = await tools.postgres.query<OutboxMessage>(readRowsSql, [
      lease.shard,
      batchRowsMax,
      batchBytesMax,
    ]);
    if (messages.length === 0 || !lease.isHeld()) return;
    await watchdog.wait(publishMessages(tools, lease, messages));
    if (!(await removeRows(tools, lease, messages))) return lease.lose();
    watchdog.beat();
  }
}

async function publishMessages(tools: DrainTools, lease: ShardLease, messages: OutboxMessage[]) {
  const to = { topic: tools.topics.outbox, partition: lease.shard, signal: lease.signal };
  const records = messages.map((message) => encodeEvent(message, message));
  await publishOrPark(tools.publisher, to, records, (position) =>
    park(tools, lease, messages[position] as OutboxMessage, records[position] as KafkaRecord),
  );
}

/** The dead letter is published before it is parked: a crash between the two repeats it. */
async function park(tools: DrainTools, lease: ShardLease, message: OutboxMessage, record: KafkaRecord) {
  const { conversation_id, sequence_number } = message;
  const reason = "record_rejected";
  const to = { topic: tools.topics.deadLetters, partition: lease.shard, signal: lease.signal };
  await publishDeadLetter(tools.publisher, to, { stage: "outbox", reason, record });
  const tries = 1;
  await tools.postgres.query(parkRecordSql, [
    lease.shard,
    message.row_id,
    conversation_id,
    sequence_number,
    reason,
    tries,
    JSON.stringify(record),
  ]);
  tools.log.error({ conversation_id, sequence_number, reason }, "record parked");
}

/** Answers whether the poller still owns the shard. */
async function removeRows(tools: DrainTools, lease: ShardLease, messages: OutboxMessage[]): Promise<boolean> {
  const rowIds = [...new Set(messages.map((message) => message.row_id))];
  const answer = await tools.postgres.query<{ is_owner: boolean }>(removeRowsSql, [
    lease.shard,
    rowIds,
    tools.pollerId,
    lease.epoch,
  ]);
  return firstRow(answer).is_owner;
}
