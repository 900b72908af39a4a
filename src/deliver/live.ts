// What the stages before live delivery see of it.
import type { EventKind } from "../model/event.ts";

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
