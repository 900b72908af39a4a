// Access tokens (RFC 7519, RFC 9068): signed here with HS256, or by another issuer whose keys we fetch.
import { jwt } from "@elysiajs/jwt";
import {
  createRemoteJWKSet,
  decodeJwt,
  errors,
  type JWTPayload,
  type JWTVerifyOptions,
  jwtVerify,
} from "jose";
import { LRUCache } from "lru-cache";
import { Problem, unavailable } from "../model/errors.ts";
import type { Caller } from "./caller.ts";

/** What signs and checks tokens; at least one of `secret` and `jwksUrl`. */
export interface TokenSettings {
  secret: string | undefined;
  jwksUrl: string | undefined;
  issuer: string;
  audience: string;
}

/** What a new access token says. */
export interface TokenClaims {
  subject: string;
  clientId: string;
  scope: string;
  expiresInSeconds: number;
  /** The refresh family it belongs to, so that revoking the family revokes it. */
  familyId?: string;
}

/** Signs and verifies access tokens. */
export interface Tokens {
  sign(claims: TokenClaims): Promise<string>;
  /** Throws Problem 401 for anything but a valid, living token of the right issuer and audience. */
  verify(token: string): Caller | Promise<Caller>;
  /** The caller of a valid, living token, and the client that it says it was given to; null for any other. */
  inspect(token: string): Promise<{ caller: Caller; clientId: unknown } | null>;
}

const tokenLengthMax = 8192;

/** Builds the signer and verifier; verified tokens are remembered, since HMAC and parsing cost more than the rest of a request's checks. */
export function openTokens(settings: TokenSettings): Tokens {
  const { issuer, audience } = settings;
  const verified = new LRUCache<string, Caller>({ max: 20_000 });
  const signer = settings.secret === undefined ? null : jwt({ secret: settings.secret }).decorator.jwt;
  const secretKey = settings.secret === undefined ? null : new TextEncoder().encode(settings.secret);
  const remoteKeys =
    settings.jwksUrl === undefined
      ? null
      : createRemoteJWKSet(new URL(settings.jwksUrl), { timeoutDuration: 2000, cooldownDuration: 5000 });
  const options: JWTVerifyOptions = { issuer, audience, requiredClaims: ["sub", "exp"] };

  // The algorithm chooses the key, and each key takes its own algorithms only (RFC 8725, 3.1).
  async function verifyOnce(token: string): Promise<Caller> {
    const algorithm = algorithmOf(token);
    let claims: JWTPayload;
    try {
      if (algorithm === "HS256" && secretKey !== null) {
        ({ payload: claims } = await jwtVerify(token, secretKey, { ...options, algorithms: ["HS256"] }));
      } else if ((algorithm === "RS256" || algorithm === "ES256") && remoteKeys !== null) {
        ({ payload: claims } = await jwtVerify(token, remoteKeys, {
          ...options,
          algorithms: ["RS256", "ES256"],
        }));
      } else {
        throw invalidToken();
      }
    } catch (error) {
      throw tokenProblem(error);
    }
    const caller = callerOf(claims, token);
    verified.set(token, caller);
    return caller;
  }

  return {
    async sign(claims) {
      if (signer === null) throw new Problem(404, "not_an_issuer", "Tokens are issued elsewhere.");
      return await signer.sign({
        iss: issuer,
        aud: audience,
        sub: claims.subject,
        jti: crypto.randomUUID(),
        scope: claims.scope,
        client_id: claims.clientId,
        ...(claims.familyId === undefined ? {} : { sid: claims.familyId }),
        exp: Math.floor(Date.now() / 1000) + claims.expiresInSeconds,
      });
    },
    verify(token) {
      const known = verified.get(token);
      if (known === undefined) {
        if (token.length > tokenLengthMax) throw invalidToken();
        return verifyOnce(token);
      }
      if (known.expiresAt * 1000 <= Date.now()) throw expiredToken();
      return known;
    },
    async inspect(token) {
      try {
        const caller = await verifyOnce(token);
        return { caller, clientId: decodeJwt(token)["client_id"] };
      } catch (error) {
        if (error instanceof Problem && error.status === 401) return null;
        throw error;
      }
    },
  };
}

function algorithmOf(token: string): unknown {
  try {
    return JSON.parse(Buffer.from(token.slice(0, token.indexOf(".")), "base64url").toString()).alg;
  } catch {
    return undefined;
  }
}

function callerOf(claims: JWTPayload, token: string): Caller {
  const { sub, exp, jti } = claims;
  const scope = claims["scope"];
  const family = claims["sid"];
  if (typeof sub !== "string" || sub.includes("\0") || !sub.isWellFormed()) throw invalidToken();
  const characters = [...sub].length;
  if (characters < 1 || characters > 128 || typeof exp !== "number") throw invalidToken();
  // A token without a jti is named by its digest, so that it can be revoked all the same.
  const id = typeof jti === "string" ? jti : new Bun.CryptoHasher("sha256").update(token).digest("hex");
  return Object.freeze({
    userId: sub,
    scopes: new Set(typeof scope === "string" ? scope.split(" ") : []),
    expiresAt: exp,
    tokenIds: typeof family === "string" ? [id, family] : [id],
  });
}

function tokenProblem(error: unknown): Problem {
  if (error instanceof Problem) return error;
  if (error instanceof errors.JWTExpired) return expiredToken();
  if (isOfTheKeys(error))
    return unavailable("keys_unavailable", "The issuer's keys cannot be fetched now.", error);
  return invalidToken();
}

// Not the token's fault: nothing, an error or no keys came from the issuer. jose says the second by its bare class.
function isOfTheKeys(error: unknown): boolean {
  if (!(error instanceof errors.JOSEError)) return true;
  return (
    error instanceof errors.JWKSTimeout ||
    error instanceof errors.JWKSInvalid ||
    error.code === errors.JOSEError.code
  );
}

/** 401 for a token that is not one of ours. */
function invalidToken(): Problem {
  return new Problem(401, "invalid_token", "The access token is not valid.");
}

/** 401 for a token whose time is over. */
export function expiredToken(): Problem {
  return new Problem(401, "token_expired", "The access token has expired.");
}

/** 401 for a token that was taken back. */
export function revokedToken(): Problem {
  return new Problem(401, "token_revoked", "The access token was revoked.");
}
