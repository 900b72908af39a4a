// What instances tell each other over Redis: one letter for the kind, then lines and JSON texts of a stated length.
// An instance gets the events of every conversation of a shard it listens to, so skipping one must cost next to
// nothing: only what `wants` says yes to is taken apart.
import { eventKinds } from "../model/event.ts";
import type { LiveEvent } from "./live.ts";

/** The newest number of a conversation. */
export interface Announcement {
  conversation_id: string;
  sequence_number: number;
}

/** A temporary state for the subscribers of a conversation, as JSON text. */
export interface Signal {
  conversation_id: string;
  frame: string;
}

/** One message on a channel. `from` is the instance that sent it, which already did what it says. */
export type WireMessage =
  | { kind: "events"; from: string; events: LiveEvent[] }
  | { kind: "signal"; from: string; signal: Signal }
  | { kind: "announcements"; announcements: readonly Announcement[] }
  | { kind: "revoked"; from: string; tokenIds: string[] }
  /** Listens from now on: until then an instance that was alone may have published nothing. */
  | { kind: "hello"; from: string }
  /** Redis lost its temporary states: whoever holds some puts them back. */
  | { kind: "epoch" };

const idLength = 36;

/** The text of a message. */
export function encode(message: WireMessage): string {
  switch (message.kind) {
    case "events":
      return `E${message.from}${message.events.map(encodeEvent).join("")}`;
    case "signal":
      return `S${message.from}${message.signal.conversation_id}${message.signal.frame}`;
    case "announcements":
      return `A${JSON.stringify(message.announcements)}`;
    case "revoked":
      return `R${message.from}${JSON.stringify(message.tokenIds)}`;
    case "hello":
      return `H${message.from}`;
    case "epoch":
      return "P";
    default:
      return message satisfies never;
  }
}

/**
 * The message of a text; of events and signals only those of wanted conversations. Answers null for what `self`
 * sent, and for what this build does not understand (a newer instance may run beside it): it is found by number.
 */
export function decode(
  text: string,
  self: string,
  wants: (conversationId: string) => boolean,
): WireMessage | null {
  if (text.startsWith(self, 1)) return null;
  try {
    return decodeOthers(text, wants);
  } catch {
    return null;
  }
}

function decodeOthers(text: string, wants: (conversationId: string) => boolean): WireMessage | null {
  switch (text.charAt(0)) {
    case "E":
      return { kind: "events", from: text.slice(1, 1 + idLength), events: decodeEvents(text, wants) };
    case "S": {
      const conversationId = text.slice(1 + idLength, 1 + 2 * idLength);
      if (!wants(conversationId)) return null;
      const signal = { conversation_id: conversationId, frame: text.slice(1 + 2 * idLength) };
      return { kind: "signal", from: text.slice(1, 1 + idLength), signal };
    }
    case "A":
      return { kind: "announcements", announcements: JSON.parse(text.slice(1)) as Announcement[] };
    case "R":
      return {
        kind: "revoked",
        from: text.slice(1, 1 + idLength),
        tokenIds: JSON.parse(text.slice(1 + idLength)) as string[],
      };
    case "H":
      return { kind: "hello", from: text.slice(1, 1 + idLength) };
    case "P":
      return { kind: "epoch" };
    default:
      return null;
  }
}

// id, length of the JSON, number, kind, removed user, end of line, JSON. Lengths are in UTF-16 units, which UTF-8
// keeps, since no text has lone surrogates.
function encodeEvent(event: LiveEvent): string {
  const removed = event.removed_user_id === null ? "" : encodeURIComponent(event.removed_user_id);
  const kind = eventKinds.indexOf(event.event);
  return `${event.conversation_id}${event.json.length},${event.sequence_number},${kind},${removed}\n${event.json}`;
}

function decodeEvents(text: string, wants: (conversationId: string) => boolean): LiveEvent[] {
  const events: LiveEvent[] = [];
  let position = 1 + idLength;
  while (position < text.length) {
    const conversationId = text.slice(position, position + idLength);
    const lineEnd = text.indexOf("\n", position);
    const jsonLength = Number.parseInt(text.slice(position + idLength, lineEnd), 10);
    if (lineEnd === -1 || Number.isNaN(jsonLength)) break;
    const end = lineEnd + 1 + jsonLength;
    if (wants(conversationId)) {
      const [, number, kind, removed] = text.slice(position + idLength, lineEnd).split(",");
      events.push({
        conversation_id: conversationId,
        sequence_number: Number(number),
        event: eventKinds[Number(kind)] ?? "message.created",
        removed_user_id: removed ? decodeURIComponent(removed) : null,
        json: text.slice(lineEnd + 1, end),
      });
    }
    position = end;
  }
  return events;
}
