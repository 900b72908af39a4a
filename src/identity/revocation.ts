// Whether a token was taken back. Postgres is asked each time, so that a revocation holds at once on every
// instance, with or without Redis; requests of the same moment share one question.

import findRevoked from "../../sql/identity/find-revoked.sql" with { type: "text" };
import type { Postgres } from "../platform/postgres.ts";
import type { Caller } from "./caller.ts";

/** Asks whether tokens were revoked. */
export interface Revocations {
  /** Rejects with the driver's error when Postgres is away. */
  isRevoked(caller: Caller): Promise<boolean>;
}

const idsMax = 1000;

/** Opens the batching of questions: one query is under way at a time per thousand ids. */
export function openRevocations(postgres: Postgres): Revocations {
  let gathering: { ids: string[]; answer: Promise<Set<string>> } | null = null;

  async function ask(ids: string[]): Promise<Set<string>> {
    // Everything that arrives in this turn of the event loop goes into the same query.
    await new Promise<void>((resolve) => setImmediate(resolve));
    gathering = null;
    const rows = await postgres.query<{ id: string }>(findRevoked, [ids]);
    return new Set(rows.map((row) => row.id));
  }

  return {
    async isRevoked(caller) {
      if (gathering === null || gathering.ids.length >= idsMax) {
        const ids: string[] = [];
        gathering = { ids, answer: ask(ids) };
      }
      const { ids, answer } = gathering;
      ids.push(...caller.tokenIds);
      const revoked = await answer;
      return revoked.size > 0 && caller.tokenIds.some((id) => revoked.has(id));
    },
  };
}
