// What the benchmarks measure against: a migrated database with 10,000 conversations, and a node in a process of its own.
import { join } from "node:path";
import type { LocalServices } from "../deploy/local/services.ts";
import { openTokens } from "../src/identity/tokens.ts";
import { conversationKey, partitionOf } from "../src/platform/murmur2.ts";
import { openPostgres, type Postgres } from "../src/platform/postgres.ts";

const conversationCount = 10_000;
const partitions = 16;

/** A database that is ready, and how to serve it. */
export interface Prepared {
  databaseUrl: string;
  jwtSecret: string;
  partitions: number;
  /** Resolves when the node listens. */
  startServer(): Promise<AsyncDisposable & { url: string; pid: number }>;
}

/** Makes and migrates the database `bench`; the node will have these roles. */
export async function prepareDatabase(
  services: Pick<LocalServices, "databaseUrl" | "kafkaBrokers" | "redisUrl">,
  roles: string,
): Promise<Prepared> {
  await using admin = openPostgres({
    url: services.databaseUrl,
    connectionsMax: 1,
    applicationName: "bench",
    connectTimeoutSeconds: 5,
    statementTimeoutMs: 60_000,
  });
  await admin.script("create database bench");
  const url = new URL(services.databaseUrl);
  url.pathname = "/bench";
  const jwtSecret = Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString("hex");
  const environment = {
    ...process.env,
    DATABASE_URL: url.href,
    KAFKA_BROKERS: services.kafkaBrokers,
    REDIS_URL: services.redisUrl,
    KAFKA_PARTITIONS: String(partitions),
    JWT_SECRET: jwtSecret,
    PORT: "0",
    ROLES: roles,
    RATE_LIMIT_USER_PER_SECOND: "0",
    RATE_LIMIT_CONVERSATION_PER_SECOND: "0",
    NODE_ENV: "production",
    LOG_LEVEL: "warn",
  };
  const main = join(import.meta.dir, "../src/main.ts");
  await Bun.$`${process.execPath} ${main} migrate`.env(environment).quiet();
  return {
    databaseUrl: url.href,
    jwtSecret,
    partitions,
    async startServer() {
      const child = Bun.spawn([process.execPath, main, "serve"], {
        env: environment,
        stdout: "ignore",
        stderr: "pipe",
      });
      for await (const chunk of child.stderr) {
        const address = /http:\/\/\S+/.exec(new TextDecoder().decode(chunk))?.[0];
        if (address === undefined) continue;
        return {
          url: address,
          pid: child.pid,
          async [Symbol.asyncDispose]() {
            child.kill();
            await child.exited;
          },
        };
      }
      throw new Error("the server did not start");
    },
  };
}

/** A node on a database that is ready, and a user who may write. */
export interface Bench extends AsyncDisposable {
  postgres: Postgres;
  server: { url: string; pid: number };
  /** Ids of the conversations, and a file with one in each line. */
  conversationIds: readonly string[];
  ids: string;
  /** Alice's, who is in every conversation. */
  token: string;
  prepared: Prepared;
}

/** Makes all of that; `directory` is for the file. */
export async function openBench(
  services: Parameters<typeof prepareDatabase>[0],
  directory: string,
  roles: string,
): Promise<Bench> {
  await using opened = new AsyncDisposableStack();
  const prepared = await prepareDatabase(services, roles);
  const postgres = openPostgres({
    url: prepared.databaseUrl,
    connectionsMax: 2,
    applicationName: "bench",
    connectTimeoutSeconds: 5,
    statementTimeoutMs: 600_000,
  });
  opened.defer(() => postgres.close());
  const conversationIds = await createConversations(postgres, prepared.partitions);
  const ids = join(directory, "ids");
  await Bun.write(ids, conversationIds.join("\n"));
  const token = await userToken(prepared);
  const server = opened.use(await prepared.startServer());
  const running = opened.move();
  return {
    postgres,
    server,
    conversationIds,
    ids,
    token,
    prepared,
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

/** Inserts the conversations that the pgbench script knows by number; answers their ids. */
export async function createConversations(postgres: Postgres, shards: number): Promise<string[]> {
  const ids = Array.from({ length: conversationCount }, (_, index) => {
    const hash = new Bun.CryptoHasher("md5").update(`conversation ${index + 1}`).digest("hex");
    return hash.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
  });
  const shardOf = ids.map((id) => partitionOf(conversationKey(id), shards));
  await postgres.query(
    `insert into conversations (id, kind, shard, last_event_at, created_by, created_at)
     select id, 'group', shard, now(), 'alice', now() from unnest($1::uuid[], $2::smallint[]) as t(id, shard)`,
    [ids, shardOf],
  );
  await postgres.query(
    `insert into members (conversation_id, user_id, role, joined_at)
     select id, u, 'owner', now() from unnest($1::uuid[]) id, unnest(array['alice', 'bob']) u`,
    [ids],
  );
  await postgres.script("vacuum (analyze) conversations");
  await postgres.script("vacuum (analyze) members");
  return ids;
}

/** A token of a user; alice is in every conversation. */
export function userToken({ jwtSecret }: Prepared, subject = "alice"): Promise<string> {
  const tokens = openTokens({
    secret: jwtSecret,
    jwksUrl: undefined,
    issuer: "chat4all",
    audience: "chat4all",
  });
  return tokens.sign({
    subject,
    clientId: "bench",
    scope: "messages:read messages:write",
    expiresInSeconds: 3600,
  });
}

/** Conversations whose numbers are not 1..n without a gap. */
export async function wrongConversations(postgres: Postgres): Promise<number> {
  const [row] = await postgres.query<{ count: number }>(
    `select count(*) from conversations c
     left join (select conversation_id, count(*) as count, max(sequence_number) as last from messages
                group by conversation_id) m on m.conversation_id = c.id
     where c.last_sequence_number <> coalesce(m.count, 0) or c.last_sequence_number <> coalesce(m.last, 0)`,
  );
  return row?.count ?? 0;
}
