// What a long run saw, and the verdict: what was acknowledged against what the database has, and what the process
// holds at its end.
import type { Postgres } from "../../src/platform/postgres.ts";
import type { Answer } from "../support/server.ts";
import { countRows, plus, type Stored } from "./effects.ts";

/** One line of the verdict. */
export interface Finding {
  what: string;
  isGood: boolean;
  seen: string;
}

// In a run whose answers overlap, what tokens are left is not told by them: a revocation answers the same for an
// unknown token, and a token that is used twice takes its family away. The property tests ask one at a time.
const tablesJudged = ["conversations", "members", "messages", "clients", "dead_letters"] as const;
const violationsKept = 10;

/** Collects while a run goes on. */
export class Ledger {
  readonly inputs = new Map<string, number>();
  readonly answers = new Map<string, number>();
  readonly violations: string[] = [];
  violationsCount = 0;
  #stored: Stored = {};
  /** message_id by conversation and number, of all that was acknowledged so. */
  readonly #acknowledged = new Map<string, string>();
  /** By message_id, of what raw inputs carried and got an answer for. */
  readonly #raw = new Map<string, "taken" | "refused">();
  readonly #rawConversation: string;

  /** Raw inputs have a conversation of their own: some end without an answer, whose outcome is not known. */
  constructor(rawConversation: string) {
    this.#rawConversation = rawConversation;
  }

  input(kind: string, count = 1): void {
    this.inputs.set(kind, (this.inputs.get(kind) ?? 0) + count);
  }

  answer(kind: string, status: number | string): void {
    const name = `${kind} ${status}`;
    this.answers.set(name, (this.answers.get(name) ?? 0) + 1);
  }

  violation(what: string): void {
    this.violationsCount += 1;
    if (this.violations.length < violationsKept) this.violations.push(what);
  }

  stored(stored: Stored): void {
    this.#stored = plus(this.#stored, stored);
  }

  /** A message that a raw input carried: once it was taken, it is not refused. */
  raw(messageId: string, outcome: "taken" | "refused"): void {
    if (this.#raw.get(messageId) !== "taken") this.#raw.set(messageId, outcome);
  }

  /** An answer's acknowledgements, of one message or of a batch. */
  acknowledged({ body }: Answer): void {
    for (const { conversation_id, sequence_number, message_id } of body.results ?? [body]) {
      if (message_id !== undefined && conversation_id !== undefined && sequence_number !== undefined)
        this.#acknowledged.set(`${conversation_id}:${sequence_number}`, message_id);
    }
  }

  /** Holds what was acknowledged against what is stored. */
  async judge(postgres: Postgres, before: Awaited<ReturnType<typeof countRows>>): Promise<Finding[]> {
    const [after, expected] = [await countRows(postgres), plus(before, this.#stored)];
    const rawStored = await messageIdsIn(postgres, this.#rawConversation);
    after.messages -= rawStored.size;
    const findings = tablesJudged.map(
      (table): Finding => ({
        what: `rows of ${table}: stored, acknowledged`,
        isGood: after[table] === expected[table],
        seen: `${after[table]}, ${expected[table]}`,
      }),
    );
    const ofRaw = (outcome: string) => [...this.#raw].filter(([, was]) => was === outcome).map(([id]) => id);
    const taken = ofRaw("taken");
    const lost = taken.filter((id) => !rawStored.has(id));
    const refusedAndStored = ofRaw("refused").filter((id) => rawStored.has(id));
    const missing = await this.#missing(postgres);
    const gaps = await gapsIn(postgres);
    return [
      ...findings,
      {
        what: "acknowledged messages are there",
        isGood: missing.length === 0,
        seen: `${this.#acknowledged.size - missing.length} of ${this.#acknowledged.size} ${missing.slice(0, 3).join()}`,
      },
      {
        what: "of raw inputs: taken and stored",
        isGood: lost.length === 0,
        seen: `${taken.length - lost.length} of ${taken.length} (${rawStored.size - taken.length} without an answer)`,
      },
      {
        what: "of raw inputs: refused and stored",
        isGood: refusedAndStored.length === 0,
        seen: `${refusedAndStored.length} of ${ofRaw("refused").length}`,
      },
      { what: "conversations with a gap", isGood: gaps === 0, seen: String(gaps) },
    ];
  }

  async #missing(postgres: Postgres): Promise<string[]> {
    const missing: string[] = [];
    const all = [...this.#acknowledged];
    for (let start = 0; start < all.length; start += 1000) {
      const some = all.slice(start, start + 1000);
      const rows = await postgres.query<{ place: string; message_id: string }>(
        `select m.conversation_id || ':' || m.sequence_number as place, m.message_id
        from messages m
        join unnest($1::uuid[], $2::bigint[]) as p (conversation_id, sequence_number)
          on m.conversation_id = p.conversation_id and m.sequence_number = p.sequence_number`,
        [some.map(([place]) => place.slice(0, 36)), some.map(([place]) => Number(place.slice(37)))],
      );
      const found = new Map(rows.map(({ place, message_id }) => [place, message_id]));
      for (const [place, messageId] of some) if (found.get(place) !== messageId) missing.push(place);
    }
    return missing;
  }
}

async function messageIdsIn(postgres: Postgres, conversationId: string): Promise<Set<string>> {
  const rows = await postgres.query<{ message_id: string }>(
    "select message_id from messages where conversation_id = $1",
    [conversationId],
  );
  return new Set(rows.map(({ message_id }) => message_id));
}

async function gapsIn(postgres: Postgres): Promise<number> {
  const [row] = await postgres.query<{ gaps: number }>(
    `select count(*) as gaps
    from conversations c
    left join (
      select conversation_id, count(*) as n, max(sequence_number) as last from messages group by 1
    ) m on m.conversation_id = c.id
    where c.last_sequence_number <> coalesce(m.n, 0) or c.last_sequence_number <> coalesce(m.last, 0)`,
  );
  return row?.gaps ?? 0;
}
