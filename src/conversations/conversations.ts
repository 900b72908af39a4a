// Conversations as callers see them: made, read, listed.
import type { Static } from "@sinclair/typebox";
import createSql from "../../sql/conversations/create.sql" with { type: "text" };
import findSql from "../../sql/conversations/find.sql" with { type: "text" };
import listSql from "../../sql/conversations/list.sql" with { type: "text" };
import type { Caller } from "../identity/caller.ts";
import { invalidInput, noConversation, notMember } from "../model/errors.ts";
import { type HistoryRow, historyJson } from "../model/event.ts";
import type { conversationBody, listQuery } from "../model/schemas.ts";
import { conversationKey, partitionOf } from "../platform/murmur2.ts";
import { firstRow, type Postgres } from "../platform/postgres.ts";

/** A conversation as the API answers it. */
export interface Conversation {
  id: string;
  kind: "direct" | "group";
  members: { user_id: string; role: "owner" | "member" }[];
  channels: string[];
  metadata?: unknown;
  last_sequence_number: number;
  created_by: string;
  created_at: string;
}

/** Makes a conversation, or answers the direct one of the same two. Throws Problem 400. */
export async function createConversation(
  postgres: Postgres,
  options: { channels: readonly string[]; partitions: number },
  caller: Caller,
  body: Static<typeof conversationBody>,
): Promise<{ created: boolean; conversation: Conversation }> {
  const channels = [...new Set(body.channels ?? [])];
  const unknown = channels.findIndex((channel) => !options.channels.includes(channel));
  if (unknown !== -1)
    throw invalidInput(`/channels/${unknown}`, "must be a configured channel", "unknown_channel");
  const members = [...new Set([...body.members, caller.userId])];
  if (body.kind === "direct" && members.length !== 2) {
    throw invalidInput("/members", "must be exactly one other user in a direct conversation");
  }
  const id = crypto.randomUUID();
  const made = firstRow(
    await postgres.query<{ outcome: "created" | "existing"; conversation_id: string }>(createSql, [
      id,
      body.kind,
      partitionOf(conversationKey(id), options.partitions),
      caller.userId,
      members,
      channels,
      body.metadata === undefined ? null : JSON.stringify(body.metadata),
      body.kind === "direct" ? JSON.stringify(members.toSorted()) : null,
    ]),
  );
  const conversation = await findConversation(postgres, caller, made.conversation_id);
  return { created: made.outcome === "created", conversation };
}

interface ConversationRow {
  id: string;
  kind: "direct" | "group";
  channels: string[];
  metadata: string | null;
  last_sequence_number: number;
  members: string;
}

/** Answers a conversation to one of its members. Throws Problem 403, 404. */
export async function findConversation(
  postgres: Postgres,
  caller: Caller,
  id: string,
): Promise<Conversation> {
  type Row = ConversationRow & { created_by: string; created_at: Date; is_member: boolean };
  const [row] = await postgres.query<Row>(findSql, [id, caller.userId]);
  if (row === undefined) throw noConversation();
  if (!row.is_member) throw notMember();
  return { ...shown(row), created_by: row.created_by, created_at: row.created_at.toISOString() };
}

// JSON columns come as text; what was not given is left out.
function shown(row: ConversationRow) {
  const { id, kind, channels, metadata, last_sequence_number, members } = row;
  return {
    id,
    kind,
    members: JSON.parse(members) as Conversation["members"],
    channels,
    ...(metadata === null ? {} : { metadata: JSON.parse(metadata) as unknown }),
    last_sequence_number,
  };
}

interface ListRow extends ConversationRow, Omit<HistoryRow, "sequence_number" | "metadata"> {
  last_event_at: Date;
  member_count: number;
  unread_count: number;
  delivered: number;
  read: number;
  sequence_number: number | null;
  last_payload: string | null;
  last_metadata: string | null;
}

/** One page of the caller's conversations, latest activity first. Throws Problem 400 for a cursor that is not ours. */
export async function listConversations(postgres: Postgres, caller: Caller, query: Static<typeof listQuery>) {
  const limit = Number(query.limit ?? 50);
  const position = query.cursor === undefined ? null : readCursor(query.cursor);
  const rows = await postgres.query<ListRow>(listSql, [
    caller.userId,
    position?.at ?? null,
    position?.id ?? null,
    limit + 1,
  ]);
  const page = rows.slice(0, limit);
  const last = page.at(-1);
  return {
    items: page.map((row) => ({
      ...shown(row),
      member_count: row.member_count,
      last_event_at: row.last_event_at.toISOString(),
      last_message: lastMessage(row),
      unread_count: row.unread_count,
      cursors: { delivered: row.delivered, read: row.read },
    })),
    next_cursor: rows.length > limit && last !== undefined ? writeCursor(last) : null,
  };
}

function lastMessage(row: ListRow): unknown {
  if (row.sequence_number === null) return null;
  return JSON.parse(
    historyJson({
      ...row,
      event: "message.created",
      conversation_id: row.id,
      sequence_number: row.sequence_number,
      payload: row.last_payload,
      metadata: row.last_metadata,
      target_sequence_number: null,
    }),
  );
}

// Milliseconds since the epoch, and the conversation at that place.
function writeCursor(row: ListRow): string {
  return Buffer.from(`${row.last_event_at.getTime()} ${row.id}`).toString("base64url");
}

const cursorPattern = /^(\d{1,14}) ([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$/;

function readCursor(cursor: string): { at: Date; id: string } {
  const [, time, id] = cursorPattern.exec(Buffer.from(cursor, "base64url").toString("latin1")) ?? [];
  if (time === undefined || id === undefined) {
    throw invalidInput("/cursor", "must be a next_cursor that was answered before");
  }
  return { at: new Date(Number(time)), id };
}
