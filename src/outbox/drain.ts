// A shard's rows come in, oldest first; their records leave for the outbox topic, then the rows are removed.
// Guaranteed: a message leaves its row only after Kafka has acknowledged its record, so a crash anywhere repeats, never
// loses; and since whoever publishes a shard begins with its oldest rows, first occurrences are always in order.
// A message that cannot be passed holds back its own conversation, and no other, until it is parked.
import cutRowsSql from "../../sql/outbox/cut-rows.sql" with { type: "text" };
import readRowsSql from "../../sql/outbox/read-rows.sql" with { type: "text" };
import removeRowsSql from "../../sql/outbox/remove-rows.sql" with { type: "text" };
import type { Holds } from "../platform/holds.ts";
import { firstRow } from "../platform/postgres.ts";
import type { Watchdog } from "../platform/watchdog.ts";
import { type DrainTools, type OutboxMessage, publishBatch } from "./drain-batch.ts";
import type { ShardLease } from "./leases.ts";

// One batch of each shard is all that a poller holds in memory, and while Kafka is away it holds just these.
const batchRowsMax = 1_000;
const batchBytesMax = 1024 * 1024;

/**
 * Publishes a shard's rows until there are none but those of conversations that are held back, or `stopping` aborts
 * (then after the batch in hand), or the lease is over. With as many conversations held as may be, the whole shard
 * waits. Rejects with the driver's error when Postgres fails; what was in hand is then published again.
 */
export async function drainShard(
  tools: DrainTools,
  lease: ShardLease,
  holds: Holds,
  watchdog: Watchdog,
  stopping: AbortSignal,
): Promise<void> {
  while (lease.isHeld() && !stopping.aborted) {
    const waiting = holds.waiting();
    if (holds.isFull() && holds.nextTryMs() !== 0) return;
    const messages = await tools.postgres.query<OutboxMessage>(readRowsSql, [
      lease.shard,
      batchRowsMax,
      batchBytesMax,
      waiting,
    ]);
    if (!lease.isHeld()) return;
    if (messages.length === 0) return holds.keepOnly(waiting);
    const published = await watchdog.wait(publishBatch(tools, lease, holds, messages));
    const areWholeRows = waiting.length === 0 && published.length === messages.length;
    const remove = areWholeRows ? removeRows : cutRows;
    if (!(await remove(tools, lease, published))) return lease.lose();
    watchdog.beat();
  }
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

/** The same for rows that may have messages which stay. */
async function cutRows(tools: DrainTools, lease: ShardLease, messages: OutboxMessage[]): Promise<boolean> {
  const answer = await tools.postgres.query<{ is_owner: boolean }>(cutRowsSql, [
    lease.shard,
    messages.map((message) => message.row_id),
    messages.map((message) => message.conversation_id),
    messages.map((message) => message.sequence_number),
    tools.pollerId,
    lease.epoch,
  ]);
  return firstRow(answer).is_owner;
}
