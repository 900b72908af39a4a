// Records come in; what leaves is each of them either acknowledged or shown to whoever parks it.
// Guaranteed: the order of the records, and that one which the broker refuses for ever stops no other.
import { type KafkaPublisher, type KafkaRecord, RecordRejected } from "./kafka.ts";

/** Where records go: a partition of a topic, until `signal` aborts. */
export interface Destination {
  topic: string;
  partition: number;
  signal: AbortSignal;
}

/** What is said of a record that is parked. */
export interface DeadLetter {
  stage: "outbox" | "router";
  /** A stable code. */
  reason: string;
  record: KafkaRecord;
}

/**
 * Publishes records in order. Each one that the broker refuses is shown to `park` by its position, and when that
 * resolves the rest goes on. Rejects as KafkaPublisher.publish does otherwise, or with `park`'s error.
 */
export async function publishOrPark(
  publisher: KafkaPublisher,
  to: Destination,
  records: KafkaRecord[],
  park: (position: number) => Promise<void>,
): Promise<void> {
  for (let start = 0; start < records.length; ) {
    try {
      await publisher.publish(
        to.topic,
        to.partition,
        start === 0 ? records : records.slice(start),
        to.signal,
      );
      return;
    } catch (error) {
      if (!(error instanceof RecordRejected)) throw error;
      await park(start + error.acknowledgedCount);
      start += error.acknowledgedCount + 1;
    }
  }
}

/**
 * Publishes a dead letter: the record with its reason in the headers, and with an empty object for its value when
 * the broker refuses it here, too.
 */
export async function publishDeadLetter(
  publisher: KafkaPublisher,
  to: Destination,
  { stage, reason, record }: DeadLetter,
): Promise<void> {
  const headers = { ...record.headers, dead_letter_stage: stage, dead_letter_reason: reason };
  await publishOrPark(publisher, to, [{ ...record, headers }], () =>
    publisher.publish(to.topic, to.partition, [{ key: record.key, value: "{}", headers }], to.signal),
  );
}
