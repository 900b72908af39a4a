// Dead letters of the router: records that could not be passed are parked, and letters whose replay has arrived on the
// topics are closed.
import closeLettersSql from "../../sql/router/close-letters.sql" with { type: "text" };
import findOpenLettersSql from "../../sql/router/find-open-letters.sql" with { type: "text" };
import parkAgainSql from "../../sql/router/park-again.sql" with { type: "text" };
import parkRecordSql from "../../sql/router/park-record.sql" with { type: "text" };
import type { TopicNames } from "../config.ts";
import { publishDeadLetter } from "../platform/dead-letters.ts";
import type { ConsumedRecord, KafkaBatch, KafkaPublisher } from "../platform/kafka.ts";
import type { RoutedEvent } from "../platform/kafka-event.ts";
import type { Log } from "../platform/log.ts";
import type { Postgres } from "../platform/postgres.ts";

interface ParkTools {
  postgres: Postgres;
  publisher: KafkaPublisher;
  topics: TopicNames;
  log: Log;
}

/** Why a record is parked, and the event in it if that could be read. */
interface Parked {
  reason: string;
  tries: number;
  event?: RoutedEvent;
}

/** The dead letter is published before it is stored: a crash between the two repeats it. */
export async function park(
  tools: ParkTools,
  batch: KafkaBatch,
  read: ConsumedRecord,
  { reason, tries, event }: Parked,
): Promise<void> {
  const { topic, partition, signal } = batch;
  const { key, headers, offset } = read;
  const record = { key: key ?? "", value: String(read.value ?? ""), headers };
  await publishDeadLetter(
    tools.publisher,
    { topic: tools.topics.deadLetters, partition, signal },
    { stage: "router", reason, tries, record },
  );
  // Its value need not be text.
  const value_base64 = read.value?.toString("base64") ?? null;
  const stored = JSON.stringify({ topic, partition, offset, key, headers, value_base64 });
  const { conversationId = null, sequenceNumber = null, deadLetterId = null } = event ?? {};
  if (deadLetterId === null) {
    await tools.postgres.query(parkRecordSql, [conversationId, sequenceNumber, reason, tries, stored]);
  } else {
    await tools.postgres.query(parkAgainSql, [deadLetterId, reason, tries, stored]);
  }
  tools.log.error({ reason, tries, topic, partition, offset }, "record parked");
}

/** Of the letters whose replays are among the events, those that are open. */
export async function openLettersOf(postgres: Postgres, events: RoutedEvent[]): Promise<Set<string>> {
  const ids = events.flatMap(({ deadLetterId }) => (deadLetterId === null ? [] : [deadLetterId]));
  if (ids.length === 0) return new Set();
  const open = await postgres.query<{ id: string }>(findOpenLettersSql, [ids]);
  return new Set(open.map(({ id }) => id));
}

/** Closes the open letters of these events. */
export async function closeLetters(postgres: Postgres, events: RoutedEvent[]): Promise<void> {
  await postgres.query(closeLettersSql, [
    events.map((event) => event.conversationId),
    events.map((event) => event.sequenceNumber),
  ]);
}
