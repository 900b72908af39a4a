// Who belongs to a conversation, and how far each has come.
import type { Static } from "@sinclair/typebox";
import addMemberSql from "../../sql/conversations/add-member.sql" with { type: "text" };
import moveCursorsSql from "../../sql/conversations/move-cursors.sql" with { type: "text" };
import removeMemberSql from "../../sql/conversations/remove-member.sql" with { type: "text" };
import type { Caller } from "../identity/caller.ts";
import { invalidInput, noConversation, notMember, Problem } from "../model/errors.ts";
import type { EventRow } from "../model/event.ts";
import type { memberBody, receiptBody } from "../model/schemas.ts";
import { firstRow, type Postgres } from "../platform/postgres.ts";

const membersMax = 1000;

type Outcome =
  | "accepted"
  | "no_conversation"
  | "not_member"
  | "not_allowed"
  | "direct"
  | "already_member"
  | "no_such_member"
  | "full"
  | "beyond_last";

type StoredEvent = EventRow & { outcome: Outcome };

/** Adds a member as a numbered event; owners only. Throws Problem 403, 404, 409. */
export async function addMember(
  postgres: Postgres,
  caller: Caller,
  conversationId: string,
  body: Static<typeof memberBody>,
  traceparent: string,
): Promise<EventRow> {
  const args = [
    conversationId,
    caller.userId,
    body.user_id,
    body.role ?? "member",
    crypto.randomUUID(),
    membersMax,
    traceparent,
  ];
  const stored = firstRow(await postgres.query<StoredEvent>(addMemberSql, args));
  refuse(stored.outcome);
  return stored;
}

/** Removes a member as a numbered event; owners, or the member. Throws Problem 403, 404, 409. */
export async function removeMember(
  postgres: Postgres,
  caller: Caller,
  conversationId: string,
  userId: string,
  traceparent: string,
): Promise<EventRow> {
  const args = [conversationId, caller.userId, userId, crypto.randomUUID(), traceparent];
  const stored = firstRow(await postgres.query<StoredEvent>(removeMemberSql, args));
  refuse(stored.outcome);
  return stored;
}

/** Moves the caller's cursors forward and answers both. Throws Problem 400, 403, 404. */
export async function moveCursors(
  postgres: Postgres,
  caller: Caller,
  conversationId: string,
  body: Static<typeof receiptBody>,
): Promise<{ delivered: number; read: number }> {
  const args = [conversationId, caller.userId, body.delivered ?? 0, body.read ?? 0];
  const rows = await postgres.query<{ outcome: Outcome; delivered: number; read: number }>(
    moveCursorsSql,
    args,
  );
  // A member who was removed between the function's look and its update has no row.
  const moved = rows[0];
  if (moved === undefined) throw notMember();
  if (moved.outcome === "beyond_last") {
    const path = (body.read ?? 0) > moved.read ? "/read" : "/delivered";
    throw invalidInput(path, "must not be beyond the conversation's last sequence number");
  }
  refuse(moved.outcome);
  return { delivered: moved.delivered, read: moved.read };
}

function refuse(outcome: Outcome): void {
  switch (outcome) {
    case "accepted":
    case "beyond_last":
      return;
    case "no_conversation":
      throw noConversation();
    case "not_member":
      throw notMember();
    case "not_allowed":
      throw new Problem(403, "not_allowed", "Only an owner may change the members; anyone may leave.");
    case "direct":
      throw new Problem(409, "direct_conversation", "The members of a direct conversation do not change.");
    case "already_member":
      throw new Problem(409, "already_member", "This user is a member already.");
    case "no_such_member":
      throw new Problem(404, "member_not_found", "This user is not a member.");
    case "full":
      throw new Problem(409, "conversation_full", `A conversation has at most ${membersMax} members.`);
  }
}
