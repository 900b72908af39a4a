// What the stages before live delivery see of it.
import { type EventKind, type EventRow, eventJson } from "../model/event.ts";

/** An event as it goes out: its JSON text is made once, and only framed from then on. */
export interface LiveEvent {
  conversation_id: string;
  sequence_number: number;
  event: EventKind;
  /** Whom a member.removed cuts off; null for every other kind. */
  removed_user_id: string | null;
  /** The event as JSON text, as `eventJson` makes it. */
  json: string;
}

/** A stored event, ready to go out. */
export function liveEvent(row: EventRow): LiveEvent {
  const { conversation_id, sequence_number, event } = row;
  const removed =
    event === "member.removed" ? (JSON.parse(row.payload ?? "{}") as { user_id: string }) : null;
  return {
    conversation_id,
    sequence_number,
    event,
    removed_user_id: removed?.user_id ?? null,
    json: eventJson(row),
  };
}
