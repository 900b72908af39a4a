// What clients did and saw, as compact records: ten minutes leave half a million. All times are performance.now() of
// this one process, so that any two of them can be compared.

/** `failed`: certainly nothing was stored (4xx). `unknown`: a 5xx, a time-out, or a connection that broke. */
export type Outcome = "ok" | "failed" | "unknown";

/** One request, or one row of a batch, and what came of it. */
export interface Try {
  client: string;
  instance: string;
  invokedAtMs: number;
  completedAtMs: number;
  outcome: Outcome;
  /** The code of its refusal, or what broke. */
  code?: string;
  number?: number;
  /** Sockets' acks have none. */
  createdAtMs?: number;
  isReplay?: boolean;
}

/** A message, an edit or a delete that somebody wanted stored, over all its tries. */
export interface Post {
  kind: "message.created" | "message.edited" | "message.deleted";
  conversationId: string;
  senderId: string;
  /** message_id or Idempotency-Key. */
  key: string;
  /** Digest of what must be stored, see `saidDigest`. */
  said: number;
  target?: number;
  /** Why it must be refused, whatever happens. */
  forbidden?: "not a member" | "malformed" | "too large" | "another body" | "not its sender";
  tries: Try[];
}

/** A member added or removed, over all tries. A removal's answer tells no number. */
export interface Move {
  kind: "member.added" | "member.removed";
  conversationId: string;
  userId: string;
  tries: Try[];
}

/** A page of history that was read. */
export interface Page {
  conversationId: string;
  userId: string;
  instance: string;
  invokedAtMs: number;
  completedAtMs: number;
  after?: number;
  before?: number;
  limit: number;
  /** The highest number of the conversation that was known when it was asked for. */
  knownLast: number;
  numbers: number[];
  /** Of each item, see `shownDigest`. */
  digests: number[];
  hasMore: boolean;
}

/** Cursors that were moved, and the answer. */
export interface Receipt {
  conversationId: string;
  userId: string;
  instance: string;
  invokedAtMs: number;
  completedAtMs: number;
  asked: { delivered: number; read: number };
  answered: { delivered: number; read: number };
}

/** What one reader got of one conversation, over any number of connections: everything after `after`, it should be. */
export interface Track {
  reader: string;
  userId: string;
  conversationId: string;
  after: number;
  numbers: number[];
  digests: number[];
  atMs: number[];
  /** Faults of the frames themselves. */
  faults: string[];
  /** Where it is connected now. */
  instance: string;
  /** Ended with its membership: it need not come to the end. */
  isOver: boolean;
}

/** A conversation as it was made. */
export interface Conversation {
  id: string;
  channels: readonly string[];
  /** Who belonged to it from the start. */
  memberIds: readonly string[];
}

/** The ledger of a run. */
export interface History {
  conversations: Conversation[];
  posts: Post[];
  moves: Move[];
  pages: Page[];
  receipts: Receipt[];
  tracks: Track[];
}

/** An event's parts that its sender decides. */
export interface Said {
  event: string;
  message_id: string;
  sender_id: string;
  payload?: unknown;
  metadata?: unknown;
  target_sequence_number?: number | null;
}

/** An event as it is seen anywhere. */
export interface SeenEvent extends Said {
  conversation_id: string;
  sequence_number: number;
  created_at: string;
}

/** A history's item: a created message as it now stands. */
export interface ShownItem extends SeenEvent {
  edited_at?: string;
  deleted_at?: string;
}

export function emptyHistory(): History {
  return { conversations: [], posts: [], moves: [], pages: [], receipts: [], tracks: [] };
}

/** 32 bits of a payload; nothing and null are the same. */
export function payloadDigest(payload: unknown): number {
  return Bun.hash.xxHash32(JSON.stringify(payload ?? null));
}

/** What was said: kind, id, sender, target, payload and metadata. */
export function saidDigest(said: Said): number {
  const { event, message_id, sender_id, metadata = null, target_sequence_number: target } = said;
  const text = JSON.stringify([event, message_id, sender_id, metadata, target ?? null]);
  return Bun.hash.xxHash32(text, payloadDigest(said.payload));
}

/** What was said, and the number and time that it got. */
export function eventDigest(said: number, number: number, createdAtMs: number): number {
  return Bun.hash.xxHash32(`${number} ${createdAtMs}`, said);
}

/** The digest of an event that was seen. */
export function seenDigest(event: SeenEvent): number {
  return eventDigest(saidDigest(event), event.sequence_number, Date.parse(event.created_at));
}

/** How an item of history stands: as it was said, with another payload, or deleted. */
export function shownDigest(item: ShownItem): number {
  return stateDigest(
    Bun.hash.xxHash32(`${item.event} ${item.message_id} ${item.sequence_number}`),
    item.deleted_at === undefined ? payloadDigest(item.payload) : "deleted",
    item.edited_at !== undefined && item.deleted_at === undefined,
  );
}

/** `identity`: the digest of kind, id and number. */
export function stateDigest(identity: number, payload: number | "deleted", isEdited: boolean): number {
  return Bun.hash.xxHash32(`${payload} ${isEdited}`, identity);
}

/** The first acknowledgement, if any. */
export function acknowledged({ tries }: { tries: readonly Try[] }): Try | undefined {
  return tries.find(({ outcome }) => outcome === "ok");
}

/** When the first try began. */
export function invokedAtMs({ tries }: { tries: readonly Try[] }): number {
  return tries.reduce((first, one) => Math.min(first, one.invokedAtMs), Number.POSITIVE_INFINITY);
}

/** When it was first known to be stored; never, if it was not. */
export function knownAtMs({ tries }: { tries: readonly Try[] }): number {
  return tries.reduce(
    (first, one) => (one.outcome === "ok" ? Math.min(first, one.completedAtMs) : first),
    Number.POSITIVE_INFINITY,
  );
}
