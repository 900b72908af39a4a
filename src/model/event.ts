// The one shape of an event, wherever it is seen: history, event stream, socket, Kafka.
// Payloads stay JSON text from the edge to the topic: they are spliced, never parsed again on the way.

/** Every kind of event; their order is part of the messages between instances (deliver/wire.ts). */
export const eventKinds = [
  "message.created",
  "message.edited",
  "message.deleted",
  "member.added",
  "member.removed",
] as const;

/** What happened in a conversation. */
export type EventKind = (typeof eventKinds)[number];

/** An event as stored; `payload` and `metadata` are JSON text. */
export interface EventRow {
  event: EventKind;
  conversation_id: string;
  sequence_number: number;
  message_id: string;
  sender_id: string;
  payload: string | null;
  metadata: string | null;
  target_sequence_number: number | null;
  created_at: Date;
}

/** A created message as it now stands: only the history shows these. */
export interface HistoryRow extends EventRow {
  edited_at: Date | null;
  deleted_at: Date | null;
}

/** The event as JSON text, with what happened at its number. */
export function eventJson(row: EventRow): string {
  return `${openEvent(row)}}`;
}

/** The event as JSON text for the history: with `edited_at`, or `deleted_at` and no payload. */
export function historyJson(row: HistoryRow): string {
  const shown = row.deleted_at === null ? row : { ...row, payload: null, metadata: null };
  let json = openEvent(shown);
  if (row.edited_at !== null) json += `,"edited_at":"${row.edited_at.toISOString()}"`;
  if (row.deleted_at !== null) json += `,"deleted_at":"${row.deleted_at.toISOString()}"`;
  return `${json}}`;
}

// Everything but the closing brace. Ids and kinds need no escaping; a sender id is any string.
function openEvent(row: EventRow): string {
  let json =
    `{"event":"${row.event}","conversation_id":"${row.conversation_id}"` +
    `,"sequence_number":${row.sequence_number},"message_id":"${row.message_id}"` +
    `,"sender_id":${JSON.stringify(row.sender_id)}`;
  if (row.payload !== null) json += `,"payload":${row.payload}`;
  if (row.metadata !== null) json += `,"metadata":${row.metadata}`;
  if (row.target_sequence_number !== null) json += `,"target_sequence_number":${row.target_sequence_number}`;
  return `${json},"created_at":"${row.created_at.toISOString()}"`;
}
