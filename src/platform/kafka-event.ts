// An event as a Kafka record, and back: CloudEvents 1.0 in binary mode, so that the value is the plain event and
// a reader learns from the headers alone what it is and whether it has seen it.
// https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md
import { isUtf8 } from "node:buffer";
import { OperatingError } from "../model/errors.ts";
import { type EventRow, eventJson } from "../model/event.ts";
import type { ConsumedRecord, KafkaRecord } from "./kafka.ts";
import { conversationKey } from "./murmur2.ts";

/** What stands with an event in the outbox. */
export interface EventRouting {
  /** W3C `traceparent` of the request that caused the event, if it had one. */
  traceparent: string | null;
  /** Channels that its conversation carries. */
  channels: readonly string[];
  /** The dead letter of which this is the replay, if it is one. */
  dead_letter_id: string | null;
}

/** A record of the outbox topic, read. */
export interface RoutedEvent {
  conversationId: string;
  sequenceNumber: number;
  channels: string[];
  /** Set on a replay: it comes late on purpose. */
  deadLetterId: string | null;
  /** What goes to the public topics: the same, without the header that was meant for the router. */
  record: KafkaRecord;
}

const numberPattern = /^[1-9][0-9]{0,15}$/;
// A URI reference that names the context of the events, the same for every deployment: their ids are unique in it.
const source = "/chat4all";
const uuid = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}";
const keyPattern = new RegExp(`^conversation:(${uuid})$`);
const idPattern = new RegExp(`^${uuid}$`);

/** The record of the outbox topic for an event. */
export function encodeEvent(row: EventRow, routing: EventRouting): KafkaRecord {
  const headers: Record<string, string> = {
    ce_specversion: "1.0",
    ce_id: `${row.conversation_id}:${row.sequence_number}`,
    ce_type: `chat4all.${row.event}.v1`,
    ce_source: source,
    ce_subject: row.conversation_id,
    ce_time: row.created_at.toISOString(),
    "content-type": "application/json",
    message_id: row.message_id,
    sequence_number: String(row.sequence_number),
  };
  if (routing.traceparent !== null) headers["traceparent"] = routing.traceparent;
  if (routing.channels.length > 0) headers["channels"] = routing.channels.join(",");
  if (routing.dead_letter_id !== null) headers["dead_letter_id"] = routing.dead_letter_id;
  return { key: conversationKey(row.conversation_id), value: eventJson(row), headers };
}

/**
 * Reads a record of the outbox topic by its key and headers; the value is passed on as it is.
 * Throws OperatingError `undecodable_record`, with a message that names the part at fault.
 */
export function decodeEvent(read: ConsumedRecord): RoutedEvent {
  const { channels, ...headers } = read.headers;
  const sequenceNumber = numberOf(headers["sequence_number"]);
  const conversationId = keyPattern.exec(read.key ?? "")?.[1];
  if (read.key === null || conversationId === undefined) throw undecodable("key");
  if (!Number.isSafeInteger(sequenceNumber) || sequenceNumber < 1) throw undecodable("sequence_number");
  if (!read.value?.length || !isUtf8(read.value)) throw undecodable("value");
  const deadLetterId = headers["dead_letter_id"] ?? null;
  if (deadLetterId !== null && !idPattern.test(deadLetterId)) throw undecodable("dead_letter_id");
  return {
    conversationId,
    sequenceNumber,
    channels: channels ? channels.split(",") : [],
    deadLetterId,
    record: { key: read.key, value: read.value.toString(), headers },
  };
}

/** NaN for anything but the digits that `encodeEvent` writes: Number would also take "0x10", " 1" and "". */
function numberOf(text: string | undefined): number {
  return text !== undefined && numberPattern.test(text) ? Number(text) : Number.NaN;
}

function undecodable(part: string): OperatingError {
  return new OperatingError("undecodable_record", { message: `the record's ${part} is not an event's` });
}
