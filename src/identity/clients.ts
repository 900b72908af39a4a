// Clients: programs that get tokens for themselves and for their users. A secret is 256 random bits, shown once
// and stored as argon2id; whether an id exists can not be told from how long an answer takes.
import { BulkheadRejectedError, bulkhead } from "cockatiel";
import { LRUCache } from "lru-cache";
import findClient from "../../sql/identity/find-client.sql" with { type: "text" };
import insertClient from "../../sql/identity/insert-client.sql" with { type: "text" };
import { unavailable } from "../model/errors.ts";
import type { Postgres } from "../platform/postgres.ts";
import type { Scope } from "./caller.ts";

/** A client that gave the right secret. */
export interface Client {
  readonly id: string;
  readonly scopes: readonly string[];
}

// OWASP's least for argon2id. A secret of 256 bits can not be guessed anyway.
const hashing = { algorithm: "argon2id", memoryCost: 19_456, timeCost: 2 } as const;
// argon2 takes a core and 19 MiB for a while: so many at once, so many waiting, and 503 for the rest.
const verifications = bulkhead(2, 64);
// Not paid again for a minute; so long may a client that was disabled get on.
const verified = new LRUCache<string, Client>({ max: 1_000, ttl: 60_000 });
let unknownClientHash: Promise<string> | undefined;

/** Makes a client. The secret that is answered is stored nowhere. */
export async function createClient(
  postgres: Postgres,
  client: { name: string; scopes: readonly Scope[] },
): Promise<{ id: string; secret: string }> {
  const id = `c_${randomText(12)}`;
  const secret = randomText(32);
  await postgres.query(insertClient, [
    id,
    client.name,
    await Bun.password.hash(secret, hashing),
    client.scopes,
  ]);
  return { id, secret };
}

/** The client of this id if the secret is its own, else null. Throws Problem 503 when too many ask at once. */
export async function verifyClient(postgres: Postgres, id: string, secret: string): Promise<Client | null> {
  const key = new Bun.CryptoHasher("sha256").update(JSON.stringify([id, secret])).digest("hex");
  const known = verified.get(key);
  if (known !== undefined) return known;

  const [found] = await postgres.query<Client & { secret_hash: string }>(findClient, [id]);
  const hash =
    found?.secret_hash ?? (await (unknownClientHash ??= Bun.password.hash(randomText(32), hashing)));
  const isRight = await verifyBounded(secret, hash);
  if (found === undefined || !isRight) return null;
  const client = { id: found.id, scopes: found.scopes };
  verified.set(key, client);
  return client;
}

/** Whether a client has this id, and is not disabled. */
export async function isClient(postgres: Postgres, id: string): Promise<boolean> {
  return (await postgres.query(findClient, [id])).length > 0;
}

async function verifyBounded(secret: string, hash: string): Promise<boolean> {
  try {
    return await verifications.execute(() => Bun.password.verify(secret, hash));
  } catch (error) {
    if (error instanceof BulkheadRejectedError) {
      throw unavailable("too_many_sign_ins", "Too many clients sign in at once.", error);
    }
    throw error;
  }
}

function randomText(bytes: number): string {
  return Buffer.from(crypto.getRandomValues(new Uint8Array(bytes))).toString("base64url");
}
