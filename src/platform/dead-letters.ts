// Records come in; what leaves is each of them acknowledged, or shown to whoever holds it back or parks it.
// Guaranteed: the order of the records of each key, and that one which cannot be passed stops none of another key.
import { OperatingError } from "../model/errors.ts";
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
  tries: number;
  record: KafkaRecord;
}

/** Why a record itself cannot be passed, whoever tries, and where it stands. */
interface Refusal {
  position: number;
  reason: string;
}

/**
 * Publishes items in order, and answers those that were acknowledged. One that cannot be passed for what it is, is shown
 * to `onRefused` with a code; it and the later ones of its key are left out, and the others go on until `onRefused`
 * answers false. Rejects as KafkaPublisher.publish does for anything else.
 */
export async function publishPassable<Item extends { record: KafkaRecord }>(
  publisher: KafkaPublisher,
  to: Destination,
  items: Item[],
  onRefused: (item: Item, reason: string) => boolean | Promise<boolean>,
): Promise<Item[]> {
  const acknowledged: Item[] = [];
  let rest = items;
  while (rest.length > 0) {
    const records = rest.map((item) => item.record);
    const refusal = await publishUntilRefused(publisher, to, records);
    if (refusal === undefined) return acknowledged.length === 0 ? rest : [...acknowledged, ...rest];
    acknowledged.push(...rest.slice(0, refusal.position));
    const refused = rest[refusal.position] as Item;
    if (!(await onRefused(refused, refusal.reason))) return acknowledged;
    rest = rest.slice(refusal.position + 1).filter(({ record }) => record.key !== refused.record.key);
  }
  return acknowledged;
}

/** Answers the first record that cannot be passed, when all before it are acknowledged and none after it was sent. */
async function publishUntilRefused(
  publisher: KafkaPublisher,
  { topic, partition, signal }: Destination,
  records: KafkaRecord[],
): Promise<Refusal | undefined> {
  const publish = (some: KafkaRecord[]) => publisher.publish(topic, partition, some, signal);
  try {
    await publish(records);
    return undefined;
  } catch (error) {
    if (error instanceof RecordRejected) return { position: error.acknowledgedCount, reason: error.code };
    if (!(error instanceof TypeError || error instanceof RangeError)) throw error;
    // Some record is not what the code expects. Which one is found by sending each alone: that repeats, at worst.
    if (records.length === 1) return { position: 0, reason: reasonOf(error) };
  }
  for (const [position, record] of records.entries()) {
    const refusal = await publishUntilRefused(publisher, { topic, partition, signal }, [record]);
    if (refusal !== undefined) return { ...refusal, position };
  }
  return undefined;
}

/** The code of what was thrown at one record. */
export function reasonOf(error: unknown): string {
  return error instanceof OperatingError ? error.code : "unexpected_error";
}

/**
 * Publishes a dead letter: the record with its reason in the headers, and with an empty object for its value when
 * the broker refuses it here, too. Refused even so, it is in the table only.
 */
export async function publishDeadLetter(
  publisher: KafkaPublisher,
  to: Destination,
  { stage, reason, tries, record }: DeadLetter,
): Promise<void> {
  const headers = {
    ...record.headers,
    dead_letter_stage: stage,
    dead_letter_reason: reason,
    dead_letter_tries: String(tries),
  };
  for (const value of [record.value, "{}"]) {
    const letter = { record: { key: record.key, value, headers } };
    const acknowledged = await publishPassable(publisher, to, [letter], () => false);
    if (acknowledged.length > 0) return;
  }
}
