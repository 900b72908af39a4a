// What stands in Postgres in the end, as compact rows that everything else is held against.
import type { Postgres } from "../../../src/platform/postgres.ts";
import { eventDigest, payloadDigest, saidDigest } from "../history.ts";

/** A numbered event. */
export interface StoredEvent {
  number: number;
  event: string;
  messageId: string;
  /** message_id or Idempotency-Key. */
  key: string;
  senderId: string;
  target: number | null;
  editedBy: number | null;
  deletedBy: number | null;
  createdAtMs: number;
  said: number;
  payload: number;
  /** Of all of it, as readers and topics must show it. */
  digest: number;
  /** Whom a member event is about. */
  userId: string | undefined;
}

/** A conversation and its events, in the order of their numbers. */
export interface StoredConversation {
  id: string;
  lastNumber: number;
  events: StoredEvent[];
}

/** By conversation. */
export type Stored = Map<string, StoredConversation>;

/** A row as Postgres has it. */
export interface EventColumns {
  sequence_number: number;
  event: string;
  message_id: string;
  idempotency_key: string;
  sender_id: string;
  payload: unknown;
  metadata: unknown;
  target_sequence_number: number | null;
  edited_by: number | null;
  deleted_by: number | null;
  created_at: Date;
}

/** Reads some conversations, one after the other: only digests of what was said are kept. */
export async function readStored(postgres: Postgres, ids: readonly string[]): Promise<Stored> {
  const stored: Stored = new Map();
  for (const id of ids) {
    const [conversation] = await postgres.query<{ last_sequence_number: number }>(
      "select last_sequence_number from conversations where id = $1",
      [id],
    );
    const rows = await postgres.query<EventColumns>(
      `select sequence_number, event, message_id, idempotency_key, sender_id, payload::text as payload,
        metadata::text as metadata, target_sequence_number, edited_by, deleted_by, created_at
       from messages where conversation_id = $1 order by sequence_number`,
      [id],
    );
    const events = rows.map((row) =>
      storedEvent({ ...row, payload: parsed(row.payload), metadata: parsed(row.metadata) }),
    );
    stored.set(id, { id, lastNumber: conversation?.last_sequence_number ?? 0, events });
  }
  return stored;
}

/** A row without what was said, of which digests stay. */
export function storedEvent(row: EventColumns): StoredEvent {
  const said = saidDigest(row);
  const createdAtMs = row.created_at.getTime();
  return {
    number: row.sequence_number,
    event: row.event,
    messageId: row.message_id,
    key: row.idempotency_key,
    senderId: row.sender_id,
    target: row.target_sequence_number,
    editedBy: row.edited_by,
    deletedBy: row.deleted_by,
    createdAtMs,
    said,
    payload: payloadDigest(row.payload),
    digest: eventDigest(said, row.sequence_number, createdAtMs),
    userId: (row.payload as { user_id?: string } | null)?.user_id,
  };
}

/** The event with a number: rows have no gap unless something is wrong. */
export function eventAt(
  conversation: StoredConversation | undefined,
  number: number,
): StoredEvent | undefined {
  const likely = conversation?.events[number - 1];
  if (likely?.number === number) return likely;
  return conversation?.events.find((event) => event.number === number);
}

function parsed(text: unknown): unknown {
  return typeof text === "string" ? JSON.parse(text) : null;
}
