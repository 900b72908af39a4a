// A migrated database for a test file, copied from a template that is made once for each state of the migrations.
// Needs TEST_DATABASE_URL: a server on which databases may be made.
import { migrate } from "../../src/platform/migrate.ts";
import { openPostgres, type Postgres } from "../../src/platform/postgres.ts";

/** A database of its own, with this build's schema. */
export interface TestDatabase {
  url: string;
  /** Removes it, whoever is still connected. */
  drop(): Promise<void>;
}

const insufficientPrivilege = "42501";
const migrations = new URL("../../sql/migrations/", import.meta.url).pathname;

/** Makes a database. Several test processes may do so at once. */
export async function makeDatabase(): Promise<TestDatabase> {
  const template = `chat4all_template_${await migrationsHash()}`;
  const name = `chat4all_test_${crypto.randomUUID().replaceAll("-", "")}`;
  await using server = connect(testDatabaseUrl());
  // A template must have no other connection while it is copied, nor be copied before it is migrated.
  await server.query("select pg_advisory_lock(hashtext('chat4all.test_template'))");
  await makeTemplate(server, template);
  await server.query(`create database ${name} template ${template}`);
  return {
    url: urlOf(name),
    drop: () => dropDatabase(name),
  };
}

/** A pool of one connection, or of a few. */
export function connect(url: string, connectionsMax = 1): Postgres {
  return openPostgres({
    url,
    connectionsMax,
    applicationName: "chat4all test",
    connectTimeoutSeconds: 5,
    statementTimeoutMs: 60_000,
  });
}

async function dropDatabase(name: string): Promise<void> {
  await using server = connect(testDatabaseUrl());
  for (let triesLeft = 50; ; triesLeft -= 1) {
    try {
      await server.query(`drop database if exists ${name} with (force)`);
      return;
    } catch (error) {
      // Autovacuum is at work in it, which only a superuser may end; it makes way by itself.
      if ((error as { code?: string }).code !== insufficientPrivilege || triesLeft === 0) throw error;
      await Bun.sleep(100);
    }
  }
}

async function makeTemplate(server: Postgres, template: string): Promise<void> {
  const found = await server.query("select from pg_database where datname = $1", [template]);
  if (found.length > 0) return;
  const unfinished = `${template}_unfinished`;
  await server.query(`drop database if exists ${unfinished} with (force)`);
  await server.query(`create database ${unfinished}`);
  {
    await using database = connect(urlOf(unfinished));
    await migrate(database);
  }
  await server.query(`alter database ${unfinished} rename to ${template}`);
}

async function migrationsHash(): Promise<string> {
  const hasher = new Bun.CryptoHasher("sha256");
  const names = await Array.fromAsync(new Bun.Glob("*.sql").scan(migrations));
  for (const name of names.toSorted()) hasher.update(await Bun.file(migrations + name).text());
  return hasher.digest("hex").slice(0, 16);
}

function urlOf(database: string): string {
  const url = new URL(testDatabaseUrl());
  url.pathname = `/${database}`;
  return url.href;
}

function testDatabaseUrl(): string {
  const url = process.env["TEST_DATABASE_URL"];
  if (!url) throw new Error("TEST_DATABASE_URL is not set: run the tests with `bun run test`");
  return url;
}
