// Clients' secrets: what is stored, and who is let in.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { createClient, verifyClient } from "../../src/identity/clients.ts";
import type { Postgres } from "../../src/platform/postgres.ts";
import { connect, makeDatabase, type TestDatabase } from "../support/database.ts";

let database: TestDatabase;
let postgres: Postgres;

beforeAll(async () => {
  database = await makeDatabase();
  postgres = connect(database.url);
});

afterAll(async () => {
  await postgres.close();
  await database.drop();
});

test("a client is known by its secret, each time", async () => {
  const { id, secret } = await createClient(postgres, { name: "shop", scopes: ["messages:read", "admin"] });
  const expected = { id, scopes: ["messages:read", "admin"] };
  expect(await verifyClient(postgres, id, secret)).toEqual(expected);
  expect(await verifyClient(postgres, id, secret)).toEqual(expected);
});

test("a secret of 256 bits is stored as argon2id only", async () => {
  const { id, secret } = await createClient(postgres, { name: "shop", scopes: ["admin"] });
  expect(id).toMatch(/^c_[\w-]{16}$/);
  expect(Buffer.from(secret, "base64url")).toHaveLength(32);
  const [row] = await postgres.query<{ secret_hash: string }>(
    "select secret_hash from clients where id = $1",
    [id],
  );
  expect(row?.secret_hash).toStartWith("$argon2id$");
});

test("a wrong, an empty and another client's secret are refused, also after the right one", async () => {
  const [one, other] = await Promise.all([
    createClient(postgres, { name: "one", scopes: ["admin"] }),
    createClient(postgres, { name: "other", scopes: ["admin"] }),
  ]);
  await verifyClient(postgres, one.id, one.secret);
  for (const secret of ["", "wrong", other.secret, `${one.secret}x`]) {
    expect(await verifyClient(postgres, one.id, secret)).toBeNull();
  }
});

test("an unknown client costs as much as a wrong secret", async () => {
  const { id } = await createClient(postgres, { name: "shop", scopes: ["admin"] });
  const durationMs = async (clientId: string) => {
    const startedAt = performance.now();
    expect(await verifyClient(postgres, clientId, "wrong")).toBeNull();
    return performance.now() - startedAt;
  };
  // The first one makes the hash that stands for every unknown client's.
  await durationMs("c_unknown");
  const known = Math.min(await durationMs(id), await durationMs(id), await durationMs(id));
  expect(await durationMs("c_unknown")).toBeGreaterThan(known / 3);
});

test("a disabled client is unknown", async () => {
  const { id, secret } = await createClient(postgres, { name: "shop", scopes: ["admin"] });
  await postgres.query("update clients set disabled_at = now() where id = $1", [id]);
  expect(await verifyClient(postgres, id, secret)).toBeNull();
});

test("more sign-ins at once than there is room for are answered with 503", async () => {
  const { id } = await createClient(postgres, { name: "shop", scopes: ["admin"] });
  const outcomes = await Promise.allSettled(
    Array.from({ length: 100 }, (_, index) => verifyClient(postgres, id, `guess ${index}`)),
  );
  const refusals = outcomes.filter((outcome) => outcome.status === "rejected").map(({ reason }) => reason);
  expect(refusals.length).toBeGreaterThan(0);
  for (const refusal of refusals) expect(refusal).toMatchObject({ status: 503, code: "too_many_sign_ins" });
});
