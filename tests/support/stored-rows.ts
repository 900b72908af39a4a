// What a node has stored, so that a test can show that a refusal stored nothing.
import { expect } from "bun:test";
import type { Postgres } from "../../src/platform/postgres.ts";

const counts = `
  select (select count(*) from conversations) as conversations,
    (select count(*) from members) as members,
    (select count(*) from messages) as messages,
    (select coalesce(sum(cardinality(sequence_numbers)), 0)::bigint from outbox) as enqueued,
    (select coalesce(sum(last_sequence_number), 0)::bigint from conversations) as last_sequence_numbers,
    (select coalesce(sum(delivered + read), 0)::bigint from members) as cursors,
    (select count(*) from messages where edited_by is not null or deleted_by is not null) as changed,
    (select count(*) from clients) as clients,
    (select count(*) from refresh_tokens) as refresh_tokens,
    (select count(*) from revoked_tokens) as revoked_tokens,
    (select count(*) from dead_letters) as dead_letters`;

/** Rows by table and the sums of all numbers; for a node without the role outbox, which takes rows away. */
async function storedRows(postgres: Postgres): Promise<Record<string, number>> {
  const [row] = await postgres.query<Record<string, number>>(counts);
  return { ...row };
}

/** Runs the work and expects that it stored nothing. */
export async function expectNothingStored<Result>(
  postgres: Postgres,
  work: () => Promise<Result>,
): Promise<Result> {
  const before = await storedRows(postgres);
  const result = await work();
  expect(await storedRows(postgres)).toEqual(before);
  return result;
}
