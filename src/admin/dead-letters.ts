// Dead letters as an operator sees them: listed, and sent on their way again through the outbox.
import type { Static } from "@sinclair/typebox";
import listSql from "../../sql/admin/list-dead-letters.sql" with { type: "text" };
import listOfConversationSql from "../../sql/admin/list-dead-letters-of-conversation.sql" with {
  type: "text",
};
import replayOneSql from "../../sql/admin/replay-dead-letter.sql" with { type: "text" };
import replaySomeSql from "../../sql/admin/replay-dead-letters.sql" with { type: "text" };
import { invalidInput, Problem } from "../model/errors.ts";
import type { deadLetterQuery } from "../model/schemas.ts";
import { firstRow, type Postgres } from "../platform/postgres.ts";

interface LetterRow {
  id: string;
  stage: "outbox" | "router";
  conversation_id: string | null;
  sequence_number: number | null;
  reason: string;
  tries: number;
  parked_at: Date;
  replay_requested_at: Date | null;
  replayed_at: Date | null;
}

type Outcome = "accepted" | "unknown" | "already_replayed" | "not_replayable";

const newest = { parkedAt: new Date("9999-12-31T23:59:59.999Z"), id: "ffffffff-ffff-ffff-ffff-ffffffffffff" };
/** Letters that one call sends on their way. */
const replaysMax = 500;

/** One page of dead letters, newest first, without what was in them. Throws Problem 400 for a cursor that is not ours. */
export async function listDeadLetters(postgres: Postgres, query: Static<typeof deadLetterQuery>) {
  const { state = "open", conversation_id } = query;
  const limit = Number(query.limit ?? 50);
  const { parkedAt, id } = query.cursor === undefined ? newest : readCursor(query.cursor);
  const args = [state !== "replayed", state !== "open", parkedAt, id, limit + 1];
  const rows = await (conversation_id === undefined
    ? postgres.query<LetterRow>(listSql, args)
    : postgres.query<LetterRow>(listOfConversationSql, [...args, conversation_id.toLowerCase()]));
  const page = rows.slice(0, limit);
  const last = page.at(-1);
  return {
    items: page.map((row) => ({
      ...row,
      parked_at: row.parked_at.toISOString(),
      replay_requested_at: row.replay_requested_at?.toISOString() ?? null,
      replayed_at: row.replayed_at?.toISOString() ?? null,
    })),
    next_cursor: rows.length > limit && last !== undefined ? writeCursor(last) : null,
  };
}

/** Sends one on its way again. Throws Problem 404 and 409. */
export async function replayDeadLetter(postgres: Postgres, id: string, traceparent: string): Promise<void> {
  const answer = await postgres.query<{ outcome: Outcome }>(replayOneSql, [id.toLowerCase(), traceparent]);
  const { outcome } = firstRow(answer);
  switch (outcome) {
    case "accepted":
      return;
    case "unknown":
      throw new Problem(404, "dead_letter_not_found", "There is no such dead letter.");
    case "already_replayed":
      throw new Problem(409, "already_replayed", "This dead letter is on its topics already.");
    case "not_replayable":
      throw new Problem(409, "not_replayable", "This record belongs to no stored message.");
  }
}

/** Sends the open ones of a conversation, or of all, on their way again, in the order of conversation and number. */
export async function replayDeadLetters(
  postgres: Postgres,
  conversationId: string | undefined,
  traceparent: string,
): Promise<{ accepted: number; has_more: boolean }> {
  const answer = await postgres.query<{ accepted: number }>(replaySomeSql, [
    conversationId?.toLowerCase() ?? null,
    replaysMax,
    traceparent,
  ]);
  const { accepted } = firstRow(answer);
  return { accepted, has_more: accepted === replaysMax };
}

// Milliseconds since the epoch, and the letter at that place.
function writeCursor(row: LetterRow): string {
  return Buffer.from(`${row.parked_at.getTime()} ${row.id}`).toString("base64url");
}

const cursorPattern = /^(\d{1,14}) ([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$/;

function readCursor(cursor: string): { parkedAt: Date; id: string } {
  const [, time, id] = cursorPattern.exec(Buffer.from(cursor, "base64url").toString("latin1")) ?? [];
  if (time === undefined || id === undefined) {
    throw invalidInput("/cursor", "must be a next_cursor that was answered before");
  }
  return { parkedAt: new Date(Number(time)), id };
}
