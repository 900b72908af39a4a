// What a call has stored when it answers 2xx; everything else stores nothing. A call that is new in the document and
// may store something needs its line here.
import type { Postgres } from "../../src/platform/postgres.ts";
import type { Answer } from "../support/server.ts";

/** Rows more (or fewer) than before, by table; what is not named stays. */
export type Stored = Partial<Record<CountedTable, number>>;

const countedTables = [
  "conversations",
  "members",
  "messages",
  "clients",
  "refresh_tokens",
  "revoked_tokens",
  "dead_letters",
] as const;
type CountedTable = (typeof countedTables)[number];

/** By call, of a 2xx answer; `unknown` where the answer does not tell. */
const storedBy: Readonly<Record<string, (answer: Answer) => Stored | "unknown">> = {
  "POST /oauth/token": ({ body }) => ("refresh_token" in body ? { refresh_tokens: 1 } : {}),
  // An unknown token is answered as a known one (RFC 7009, 2.2).
  "POST /oauth/revoke": () => "unknown",
  "POST /v1/users/{user_id}/tokens": () => ({ refresh_tokens: 1 }),
  "POST /v1/admin/clients": () => ({ clients: 1 }),
  "POST /v1/messages": ({ body }) => ({ messages: body.replay ? 0 : 1 }),
  "POST /v1/messages/batch": ({ body }) => ({
    messages: body.results.filter(({ status, replay }: Answer["body"]) => status === 202 && !replay).length,
  }),
  "PATCH /v1/conversations/{conversation_id}/messages/{sequence_number}": ({ body }) => ({
    messages: body.replay ? 0 : 1,
  }),
  "DELETE /v1/conversations/{conversation_id}/messages/{sequence_number}": ({ body }) => ({
    messages: body.replay ? 0 : 1,
  }),
  "POST /v1/conversations": ({ status, body }) =>
    status === 201 ? { conversations: 1, members: body.members.length } : {},
  "POST /v1/conversations/{conversation_id}/members": () => ({ members: 1, messages: 1 }),
  "DELETE /v1/conversations/{conversation_id}/members/{user_id}": () => ({ members: -1, messages: 1 }),
  "POST /v1/conversations/{conversation_id}/receipts": () => ({}),
  // A replay adds to the outbox alone.
  "POST /v1/admin/dead-letters/replay": () => ({}),
  "POST /v1/admin/dead-letters/{id}/replay": () => ({}),
};

/** What this answer to this call means; undefined: nobody said. */
export function storedAfter(call: string, answer: Answer): Stored | "unknown" | undefined {
  if (call.startsWith("GET ") || answer.status >= 300) return {};
  return storedBy[call]?.(answer);
}

/** Whether it is said what the call stores. */
export function hasEffect(call: string): boolean {
  return call.startsWith("GET ") || Object.hasOwn(storedBy, call);
}

/** Rows by table. */
export async function countRows(postgres: Postgres): Promise<Record<CountedTable, number>> {
  const counts = countedTables.map((table) => `(select count(*) from ${table}) as ${table}`);
  const [row] = await postgres.query<Record<CountedTable, number>>(`select ${counts.join(", ")}`);
  if (row === undefined) throw new Error("no counts");
  return { ...row };
}

/** `counts` with what was stored since. */
export function plus<Counts extends Stored>(counts: Counts, stored: Stored): Counts {
  const sum = { ...counts };
  for (const table of countedTables) {
    if (stored[table] !== undefined) sum[table] = (sum[table] ?? 0) + stored[table];
  }
  return sum;
}

/** One text that differs whenever any row of any table does; for a node whose workers write nothing. */
export async function contentOf(postgres: Postgres): Promise<string> {
  tables ??= await postgres.query<{ name: string }>(
    "select quote_ident(tablename) as name from pg_tables where schemaname = 'public' order by 1",
  );
  const sums = tables.map(
    ({ name }) => `(select count(*) || ':' || coalesce(sum(hashtextextended(t::text, 0)), 0) from ${name} t)`,
  );
  const [row] = await postgres.query<{ content: string }>(
    `select concat_ws(' ', ${sums.join(", ")}) as content`,
  );
  return row?.content ?? "";
}

let tables: { name: string }[] | undefined;
