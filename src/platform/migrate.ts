// Brings a database to this build's schema: embedded files in order, each with its checksum in the ledger.

import tables from "../../sql/migrations/0001_tables.sql" with { type: "text" };
import functions from "../../sql/migrations/0002_functions.sql" with { type: "text" };
import deadLetters from "../../sql/migrations/0003_dead_letters.sql" with { type: "text" };
import expiry from "../../sql/migrations/0004_expiry.sql" with { type: "text" };
import replays from "../../sql/migrations/0005_replays.sql" with { type: "text" };
import clocks from "../../sql/migrations/0006_clocks.sql" with { type: "text" };
import { OperatingError } from "../model/errors.ts";
import type { Postgres } from "./postgres.ts";

const migrations = [
  { version: 1, name: "tables", text: tables },
  { version: 2, name: "functions", text: functions },
  { version: 3, name: "dead_letters", text: deadLetters },
  { version: 4, name: "expiry", text: expiry },
  { version: 5, name: "replays", text: replays },
  { version: 6, name: "clocks", text: clocks },
];

const ledger = `
  create table if not exists schema_migrations (
    version integer primary key, name text not null, checksum text not null,
    applied_at timestamptz not null default now())`;

/** The newest schema version that this build knows. */
export const schemaVersion = migrations.length;

/**
 * Applies what is missing, under a lock, so that several instances may start at once. Answers the names applied.
 * Throws OperatingError `schema_newer` when the database is ahead of this build, `migration_changed` when an
 * applied file was edited since.
 */
export async function migrate(postgres: Postgres): Promise<string[]> {
  await postgres.script(ledger);
  const applied = await appliedMigrations(postgres);
  const names: string[] = [];
  for (const migration of migrations) {
    if (applied.has(migration.version)) continue;
    if (await applyOnce(postgres, migration)) names.push(migration.name);
  }
  return names;
}

/** Throws OperatingError `schema_older` or `schema_newer` unless the database has exactly this build's schema. */
export async function checkSchema(postgres: Postgres): Promise<void> {
  const found = await postgres.query<{ present: boolean }>(
    "select to_regclass('schema_migrations') is not null as present",
  );
  const applied = found[0]?.present ? await appliedMigrations(postgres) : new Map<number, string>();
  if (applied.size < schemaVersion) {
    throw new OperatingError("schema_older", { message: "the database needs `chat4all migrate` first" });
  }
}

async function appliedMigrations(postgres: Postgres): Promise<Map<number, string>> {
  const rows = await postgres.query<{ version: number; checksum: string }>(
    "select version, checksum from schema_migrations",
  );
  const applied = new Map(rows.map((row) => [row.version, row.checksum]));
  for (const version of applied.keys()) {
    if (version > schemaVersion) {
      throw new OperatingError("schema_newer", {
        message: `the database has schema version ${version}, newer than this build's ${schemaVersion}; run a newer build`,
      });
    }
  }
  for (const { version, name, text } of migrations) {
    const checksum = applied.get(version);
    if (checksum !== undefined && checksum !== checksumOf(text)) {
      throw new OperatingError("migration_changed", {
        message: `migration ${version}_${name} was changed after it was applied; run the build that applied it`,
      });
    }
  }
  return applied;
}

// One implicit transaction per file (simple protocol); whoever waited for the lock finds the row and skips.
async function applyOnce(postgres: Postgres, migration: (typeof migrations)[number]): Promise<boolean> {
  const { version, name, text } = migration;
  try {
    await postgres.script(`select pg_advisory_xact_lock(hashtext('chat4all.migrate'));
      insert into schema_migrations (version, name, checksum) values (${version}, '${name}', '${checksumOf(text)}');
      ${text}
`);
    return true;
  } catch (error) {
    const code = (error as { code?: string }).code;
    if (code === "23505") return false;
    throw error;
  }
}

function checksumOf(text: string): string {
  return new Bun.CryptoHasher("sha256").update(text).digest("hex");
}
