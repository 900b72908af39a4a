// Messages of one shard come in, in order; what leaves is those of them that Kafka has acknowledged.
// A message that cannot be passed for what it is, whether it cannot be encoded or the broker refuses it, is tried again
// after a pause, alone, and parked after `triesMax` tries; until then nothing of its conversation is published. What
// fails for any other reason is the surroundings' fault, and is tried for as long as that takes.
import parkRecordSql from "../../sql/outbox/park-record.sql" with { type: "text" };
import type { TopicNames } from "../config.ts";
import { OperatingError } from "../model/errors.ts";
import type { EventRow } from "../model/event.ts";
import { publishDeadLetter, publishPassable } from "../platform/dead-letters.ts";
import { type Holds, triesMax } from "../platform/holds.ts";
import type { KafkaPublisher, KafkaRecord } from "../platform/kafka.ts";
import { type EventRouting, encodeEvent } from "../platform/kafka-event.ts";
import type { Log } from "../platform/log.ts";
import { conversationKey } from "../platform/murmur2.ts";
import { firstRow, type Postgres } from "../platform/postgres.ts";
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
export interface OutboxMessage extends EventRow, EventRouting {
  row_id: number;
}

interface Encoded {
  message: OutboxMessage;
  record: KafkaRecord;
}

/** Answers the messages that are published; the others stay. Rejects when the lease is over, or Postgres fails. */
export async function publishBatch(
  tools: DrainTools,
  lease: ShardLease,
  holds: Holds,
  messages: OutboxMessage[],
): Promise<OutboxMessage[]> {
  const to = { topic: tools.topics.outbox, partition: lease.shard, signal: lease.signal };
  /** Conversations of which nothing more is published in this batch. */
  const stopped = new Set<string>();

  /** Answers whether the rest of the batch may go on: not when no more can be held, so that the shard waits. */
  async function refuse(message: OutboxMessage, reason: string, record = stub(message)): Promise<boolean> {
    const { conversation_id } = message;
    stopped.add(conversation_id);
    const tries = holds.fail(conversation_id, itemOf(message));
    if (tries >= triesMax) {
      await park(tools, lease, message, { reason, tries, record });
      holds.release(conversation_id);
    }
    return tries > 0;
  }

  async function publish(chosen: OutboxMessage[]): Promise<OutboxMessage[]> {
    const encoded: Encoded[] = [];
    for (const message of chosen) {
      if (stopped.has(message.conversation_id)) continue;
      try {
        encoded.push({ message, record: encodeEvent(message, message) });
      } catch {
        if (!(await refuse(message, "encoding_failed"))) break;
      }
    }
    const published = await publishPassable(tools.publisher, to, encoded, ({ message, record }, reason) =>
      refuse(message, reason, record),
    );
    return published.map(({ message }) => message);
  }

  if (holds.isEmpty()) return publish(messages);
  // What failed before is tried alone, so that it is not searched for again among all others.
  const passed = new Set<OutboxMessage>();
  for (const first of firstOfEach(messages)) {
    if (holds.isSuspect(first.conversation_id, itemOf(first))) {
      for (const message of await publish([first])) passed.add(message);
    }
    if (!stopped.has(first.conversation_id)) holds.release(first.conversation_id);
  }
  return [...passed, ...(await publish(messages.filter((message) => !passed.has(message))))];
}

/** The first message of each conversation. */
function firstOfEach(messages: OutboxMessage[]): OutboxMessage[] {
  const firsts = new Map<string, OutboxMessage>();
  for (const message of messages) {
    if (!firsts.has(message.conversation_id)) firsts.set(message.conversation_id, message);
  }
  return [...firsts.values()];
}

function itemOf({ row_id, sequence_number }: OutboxMessage): string {
  return `${row_id}:${sequence_number}`;
}

/** What stands for a record that could not be made. */
function stub({ conversation_id, sequence_number, message_id }: OutboxMessage): KafkaRecord {
  const headers = {
    ce_id: `${conversation_id}:${sequence_number}`,
    message_id,
    sequence_number: String(sequence_number),
  };
  return { key: conversationKey(conversation_id), value: "{}", headers };
}

/** The dead letter is published before it is parked: a crash between the two repeats it. */
async function park(
  tools: DrainTools,
  lease: ShardLease,
  { row_id, conversation_id, sequence_number }: OutboxMessage,
  { reason, tries, record }: { reason: string; tries: number; record: KafkaRecord },
): Promise<void> {
  const to = { topic: tools.topics.deadLetters, partition: lease.shard, signal: lease.signal };
  await publishDeadLetter(tools.publisher, to, { stage: "outbox", reason, tries, record });
  const answer = await tools.postgres.query<{ is_owner: boolean }>(parkRecordSql, [
    lease.shard,
    row_id,
    conversation_id,
    sequence_number,
    tools.pollerId,
    lease.epoch,
    reason,
    tries,
    JSON.stringify(record),
  ]);
  if (!firstRow(answer).is_owner) {
    lease.lose();
    throw new OperatingError("lease_lost");
  }
  tools.log.error({ conversation_id, sequence_number, reason, tries }, "record parked");
}
