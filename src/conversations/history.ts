// The history: every numbered event, with created messages as they now stand.
import type { Static } from "@sinclair/typebox";
import accessSql from "../../sql/conversations/access.sql" with { type: "text" };
import findMessageSql from "../../sql/conversations/find-message.sql" with { type: "text" };
import afterSql from "../../sql/conversations/history-after.sql" with { type: "text" };
import beforeSql from "../../sql/conversations/history-before.sql" with { type: "text" };
import { invalidInput, noConversation, notMember, Problem } from "../model/errors.ts";
import { type HistoryRow, historyJson } from "../model/event.ts";
import { type RecentItems, recentItemsMax } from "../model/recent-items.ts";
import type { historyQuery } from "../model/schemas.ts";
import { firstRow, type Postgres } from "../platform/postgres.ts";

/** One page as JSON text, for a member. Throws Problem 400, 403, 404. */
export async function readHistory(
  postgres: Postgres,
  recent: RecentItems,
  userId: string,
  conversationId: string,
  query: Static<typeof historyQuery>,
): Promise<string> {
  if (query.after !== undefined && query.before !== undefined) {
    throw invalidInput("/before", "must not be given together with after");
  }
  const lastNumber = await memberAccess(postgres, conversationId, userId);
  const limit = Number(query.limit ?? 50);
  if (query.after !== undefined)
    return page(await read(postgres, afterSql, conversationId, Number(query.after), limit), limit);
  if (query.before !== undefined) {
    return page(await read(postgres, beforeSql, conversationId, Number(query.before), limit), limit);
  }
  return await newestPage(postgres, recent, conversationId, lastNumber, limit);
}

async function newestPage(
  postgres: Postgres,
  recent: RecentItems,
  conversationId: string,
  lastNumber: number,
  limit: number,
): Promise<string> {
  if (limit > recentItemsMax) {
    return page(await read(postgres, beforeSql, conversationId, Number.MAX_SAFE_INTEGER, limit), limit);
  }
  let items = await recent.read(conversationId, lastNumber);
  if (items === null) {
    items = await read(postgres, beforeSql, conversationId, lastNumber + 1, recentItemsMax - 1);
    void recent.write(conversationId, lastNumber, items);
  }
  return joined(items.slice(0, limit), lastNumber > limit);
}

async function read(
  postgres: Postgres,
  sql: string,
  conversationId: string,
  from: number,
  limit: number,
): Promise<string[]> {
  const rows = await postgres.query<HistoryRow>(sql, [conversationId, from, limit + 1]);
  return rows.map(historyJson);
}

function page(items: string[], limit: number): string {
  return joined(items.slice(0, limit), items.length > limit);
}

function joined(items: string[], hasMore: boolean): string {
  return `{"items":[${items.join(",")}],"has_more":${hasMore}}`;
}

/** The last number of a conversation, for a member. Throws Problem 403, 404. */
async function memberAccess(postgres: Postgres, conversationId: string, userId: string): Promise<number> {
  const [row] = await postgres.query<{ last_sequence_number: number; is_member: boolean }>(accessSql, [
    conversationId,
    userId,
  ]);
  if (row === undefined) throw noConversation();
  if (!row.is_member) throw notMember();
  return row.last_sequence_number;
}

/** One event with its state and, per member, what was delivered and read, as JSON text. Throws Problem 403, 404. */
export async function readMessage(
  postgres: Postgres,
  userId: string,
  conversationId: string,
  sequenceNumber: number,
): Promise<string> {
  const lastNumber = await memberAccess(postgres, conversationId, userId);
  if (sequenceNumber > lastNumber) {
    throw new Problem(404, "message_not_found", "There is no such message in this conversation.");
  }
  const row = firstRow(
    await postgres.query<HistoryRow & { state: string; members: string | null }>(findMessageSql, [
      conversationId,
      sequenceNumber,
    ]),
  );
  return `${historyJson(row).slice(0, -1)},"state":"${row.state}","members":${row.members ?? "[]"}}`;
}
