// Edits and deletes: numbered events that point at the message they change.
import type { Static } from "@sinclair/typebox";
import changeMessageSql from "../../sql/ingest/change-message.sql" with { type: "text" };
import type { Caller } from "../identity/caller.ts";
import { noConversation, notMember, Problem } from "../model/errors.ts";
import type { EventRow } from "../model/event.ts";
import type { changeHeaders, messageParams, payload } from "../model/schemas.ts";
import { firstRow, type Postgres } from "../platform/postgres.ts";

/** What a change needs: the database, and where its event goes after the commit. */
export interface Changes {
  postgres: Postgres;
  onEvent(event: EventRow): void;
}

type Outcome =
  | "accepted"
  | "replayed"
  | "reused"
  | "no_conversation"
  | "not_member"
  | "no_message"
  | "not_allowed"
  | "deleted";

/** Stores an edit (with a payload) or a delete (null) and answers as POST does. Throws Problem 400, 403, 404, 409, 422. */
export async function changeMessage(
  changes: Changes,
  change: {
    caller: Caller;
    traceparent: string;
    params: Static<typeof messageParams>;
    payload: Static<typeof payload> | null;
    headers: Static<typeof changeHeaders>;
    set: { status?: number | string; headers: Record<string, unknown> };
  },
) {
  const { caller, params, set } = change;
  const stored = firstRow(
    await changes.postgres.query<EventRow & { outcome: Outcome }>(changeMessageSql, [
      params.conversation_id.toLowerCase(),
      Number(params.sequence_number),
      caller.userId,
      change.headers["idempotency-key"]?.toLowerCase() ?? crypto.randomUUID(),
      change.payload === null ? null : JSON.stringify(change.payload),
      change.traceparent,
    ]),
  );
  refuse(stored.outcome);
  const replay = stored.outcome === "replayed";
  if (!replay) changes.onEvent(stored);
  set.status = 202;
  if (replay) set.headers["idempotent-replay"] = "true";
  return {
    message_id: stored.message_id,
    conversation_id: stored.conversation_id,
    sequence_number: stored.sequence_number,
    state: "enqueued" as const,
    created_at: stored.created_at.toISOString(),
    replay,
  };
}

function refuse(outcome: Outcome): void {
  switch (outcome) {
    case "accepted":
    case "replayed":
      return;
    case "reused":
      throw new Problem(
        422,
        "idempotency_key_reused",
        "This Idempotency-Key was sent before with another change.",
      );
    case "no_conversation":
      throw noConversation();
    case "not_member":
      throw notMember();
    case "no_message":
      throw new Problem(404, "message_not_found", "There is no such message in this conversation.");
    case "not_allowed":
      throw new Problem(
        403,
        "not_allowed",
        "Only its sender may edit a message, and only they or an owner delete it.",
      );
    case "deleted":
      throw new Problem(409, "message_deleted", "The message was deleted.");
  }
}
