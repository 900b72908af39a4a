/** A database that has this build's schema and nothing else, for the checks that ask Postgres. */
import { join } from "node:path";
import { migrate } from "../../../src/platform/migrate.ts";
import { openPostgres, type Postgres } from "../../../src/platform/postgres.ts";
import { claimDirectory } from "../claim.ts";
import { startPostgres } from "../postgres.ts";
import type { RunningServer } from "../services.ts";

/**
 * Gives `work` the address of a freshly migrated database, and removes it afterwards.
 * It is on the server of TEST_DATABASE_URL, whose role must be allowed to create databases, or else on one that is
 * started for it.
 */
export async function withMigratedDatabase<T>(
  { root, signal }: { root: string; signal: AbortSignal },
  work: (url: string) => Promise<T>,
): Promise<T> {
  const given = process.env["TEST_DATABASE_URL"];
  if (given) return withDatabaseOn(given, work);

  const dataDirectory = join(root, ".chat4all/check");
  const release = claimDirectory(dataDirectory);
  try {
    const server: RunningServer = await startPostgres({
      dataDirectory,
      signal,
      report: () => undefined,
      anyPort: true,
      mayCreateDatabases: true,
    });
    try {
      return await withDatabaseOn(server.url, work);
    } finally {
      await server.stop();
    }
  } finally {
    release();
  }
}

/** One connection to the database at `url`. */
export function openForCheck(url: string): Postgres {
  return openPostgres({
    url,
    connectionsMax: 1,
    applicationName: "chat4all check",
    connectTimeoutSeconds: 10,
    statementTimeoutMs: 60_000,
  });
}

async function withDatabaseOn<T>(serverUrl: string, work: (url: string) => Promise<T>): Promise<T> {
  const name = `chat4all_check_${process.pid}`;
  const url = new URL(serverUrl);
  url.pathname = `/${name}`;
  await using server = openForCheck(serverUrl);
  await server.query(`drop database if exists ${name}`);
  await server.query(`create database ${name}`);
  try {
    await migrateOnce(url.href);
    return await work(url.href);
  } finally {
    await server.query(`drop database ${name} with (force)`);
  }
}

async function migrateOnce(url: string): Promise<void> {
  await using database = openForCheck(url);
  await migrate(database);
}
