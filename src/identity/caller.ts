// Who calls, as far as a verified access token tells.
import { Problem } from "../model/errors.ts";

/** What a token may allow. */
export const scopes = ["messages:read", "messages:write", "admin"] as const;
/** One of them. */
export type Scope = (typeof scopes)[number];

/** The bearer of a verified token. */
export interface Caller {
  /** The token's `sub`: a user's or a client's id. */
  readonly userId: string;
  readonly scopes: ReadonlySet<string>;
  /** Seconds since the epoch, as `exp` has them. */
  readonly expiresAt: number;
  /** What a revocation may name: the token's `jti`, and its family's id where it has one. */
  readonly tokenIds: readonly string[];
}

/** Throws 403 `insufficient_scope` unless the caller's token has the scope (RFC 6750, 3.1). */
export function requireScope(caller: Caller, scope: Scope): void {
  if (!caller.scopes.has(scope)) {
    throw new Problem(403, "insufficient_scope", `The token lacks the scope ${scope}.`);
  }
}
