// Refresh tokens: 256 random bits, stored as SHA-256 only, traded once each (RFC 6749, 6; RFC 9700, 4.14.2).

import findRefreshToken from "../../sql/identity/find-refresh-token.sql" with { type: "text" };
import revokeFamily from "../../sql/identity/revoke-family.sql" with { type: "text" };
import rotateRefreshToken from "../../sql/identity/rotate-refresh-token.sql" with { type: "text" };
import startFamily from "../../sql/identity/start-family.sql" with { type: "text" };
import { firstRow, type Postgres } from "../platform/postgres.ts";

/** A sign-in of one subject by one client. */
export interface Session {
  familyId: string;
  subject: string;
  scope: string;
  refreshToken: string;
}

/** What happened to a refresh token that was presented; `familyId` when its family has just been revoked. */
export type Rotation =
  | { outcome: "rotated"; session: Session }
  | { outcome: "reused"; familyId: string }
  | { outcome: "unknown" };

/** Starts a family. */
export async function startSession(
  postgres: Postgres,
  sign: { clientId: string; subject: string; scope: string; refreshSeconds: number },
): Promise<Session> {
  const familyId = crypto.randomUUID();
  const refreshToken = randomToken();
  const expiresAt = new Date(Date.now() + sign.refreshSeconds * 1000);
  await postgres.query(startFamily, [
    digest(refreshToken),
    familyId,
    sign.clientId,
    sign.subject,
    sign.scope,
    expiresAt,
  ]);
  return { familyId, subject: sign.subject, scope: sign.scope, refreshToken };
}

/** Trades a refresh token for the next. */
export async function rotateSession(
  postgres: Postgres,
  presented: { refreshToken: string; clientId: string; refreshSeconds: number; accessSeconds: number },
): Promise<Rotation> {
  const next = randomToken();
  const expiresAt = new Date(Date.now() + presented.refreshSeconds * 1000);
  const row = firstRow(
    await postgres.query<{ outcome: Rotation["outcome"]; family_id: string; subject: string; scope: string }>(
      rotateRefreshToken,
      [digest(presented.refreshToken), presented.clientId, digest(next), expiresAt, presented.accessSeconds],
    ),
  );
  if (row.outcome === "rotated") {
    const { family_id, subject, scope } = row;
    return { outcome: "rotated", session: { familyId: family_id, subject, scope, refreshToken: next } };
  }
  return row.outcome === "reused" ? { outcome: "reused", familyId: row.family_id } : { outcome: "unknown" };
}

/** Ends the family of a refresh token of this client; answers the family's id, or null for a token that is not known. */
export async function endSession(
  postgres: Postgres,
  presented: { refreshToken: string; clientId: string; accessSeconds: number },
): Promise<string | null> {
  const rows = await postgres.query<{ family_id: string; client_id: string }>(findRefreshToken, [
    digest(presented.refreshToken),
  ]);
  const found = rows[0];
  if (found === undefined || found.client_id !== presented.clientId) return null;
  await postgres.query(revokeFamily, [found.family_id, presented.accessSeconds]);
  return found.family_id;
}

function randomToken(): string {
  return `r_${Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString("base64url")}`;
}

function digest(token: string): Uint8Array {
  return new Bun.CryptoHasher("sha256").update(token).digest();
}
