// Tokens: for clients (RFC 6749), for their users, and taken back (RFC 7009).
import { TypeCompiler } from "@sinclair/typebox/compiler";
import { Elysia } from "elysia";
import revokeTokenSql from "../../sql/identity/revoke-token.sql" with { type: "text" };
import { describeBody, describeCall } from "../edge/describe.ts";
import { bodyBytesMax, type Edge, jsonBody, optionalJsonBody } from "../edge/edge.ts";
import { checked } from "../edge/problems.ts";
import { clientAnswer, tokenAnswer } from "../model/answers.ts";
import { invalidInput, Problem } from "../model/errors.ts";
import { clientBody, oauthRevokeBody, oauthTokenBody, userParams, userTokenBody } from "../model/schemas.ts";
import type { Postgres } from "../platform/postgres.ts";
import { type Scope, scopes } from "./caller.ts";
import { type Client, createClient, isClient } from "./clients.ts";
import { authenticateClient, oauthContentTypes, readParameters } from "./oauth-body.ts";
import { endSession, rotateSession, type Session, startSession } from "./sessions.ts";
import type { Tokens } from "./tokens.ts";

/** What these calls need; `onRevoked` tells every instance, so that sockets close at once. */
export interface IdentityParts {
  postgres: Postgres;
  tokens: Tokens;
  accessSeconds: number;
  refreshSeconds: number;
  onRevoked(tokenIds: string[]): void;
}

// The longest life that an access token can be given: so long a revoked family is remembered.
const accessSecondsMax = 86_400;

const tag = "identity";
const describe = {
  token: describeCall(
    tag,
    "Gives a token to a client, or trades a refresh token",
    { 200: tokenAnswer },
    [400, 413, 415],
  ),
  revoke: describeCall(tag, "Takes a token back, on every instance at once", { 200: null }, [400, 413, 415]),
  userToken: describeCall(tag, "Signs a user in", { 200: tokenAnswer }, [400, 403, 413, 415]),
  client: describeCall("admin", "Makes a client", { 201: clientAnswer }, [400, 403, 413, 415]),
};

/** /oauth/token and /oauth/revoke: the client authenticates itself, there is no bearer token. */
export function oauthRoutes(parts: IdentityParts) {
  return new Elysia({ prefix: "/oauth" })
    .post(
      "/token",
      async ({ request }) => {
        const parameters = await readParameters(request);
        const client = await authenticateClient(parts.postgres, request, parameters);
        switch (parameters.get("grant_type")) {
          case "client_credentials":
            return tokenResponse(await clientToken(parts, client.id, client.scopes, parameters.get("scope")));
          case "refresh_token":
            return tokenResponse(await refreshedToken(parts, client.id, parameters));
          case undefined:
            throw new Problem(400, "invalid_request", "grant_type is missing.");
          default:
            throw new Problem(400, "unsupported_grant_type", "Use client_credentials or refresh_token.");
        }
      },
      {
        parse: "none",
        detail: { ...describe.token, ...describeBody(oauthTokenBody, oauthContentTypes), security: [] },
      },
    )
    .post(
      "/revoke",
      async ({ request }) => {
        const parameters = await readParameters(request);
        const client = await authenticateClient(parts.postgres, request, parameters);
        const token = parameters.get("token");
        if (token === undefined) throw new Problem(400, "invalid_request", "token is missing.");
        await revoke(parts, client, token);
        return new Response(null, { status: 200 });
      },
      {
        parse: "none",
        detail: { ...describe.revoke, ...describeBody(oauthRevokeBody, oauthContentTypes), security: [] },
      },
    );
}

/** Calls of scope admin that hand out credentials. */
export function credentialRoutes(edge: Edge, parts: IdentityParts) {
  return new Elysia({ prefix: "/v1" })
    .use(edge.withCaller("admin"))
    .post(
      "/users/:user_id/tokens",
      async ({ caller, params, body }) => {
        const { scope: wanted, expires_in } = checked(userTokenCheck, body);
        const scope = userScope(wanted);
        const { accessSeconds, refreshSeconds } = parts;
        const session = await startSession(parts.postgres, {
          clientId: caller.userId,
          subject: params.user_id,
          scope,
          refreshSeconds,
        });
        return tokenResponse(await sessionToken(parts, caller.userId, session, expires_in ?? accessSeconds));
      },
      {
        parse: optionalJsonBody(bodyBytesMax.message),
        params: userParams,
        detail: { ...describe.userToken, ...describeBody(userTokenBody, ["application/json"], false) },
      },
    )
    .post(
      "/admin/clients",
      async ({ body, set }) => {
        const granted = knownScopes(body.scope ?? "messages:read messages:write", scopes);
        const client = await createClient(parts.postgres, { name: body.name, scopes: granted });
        set.status = 201;
        return {
          client_id: client.id,
          client_secret: client.secret,
          name: body.name,
          scope: granted.join(" "),
        };
      },
      { parse: jsonBody(bodyBytesMax.message), body: clientBody, detail: describe.client },
    );
}

interface TokenAnswer {
  access_token: string;
  token_type: "Bearer";
  expires_in: number;
  scope: string;
  refresh_token?: string;
}

async function clientToken(
  parts: IdentityParts,
  clientId: string,
  allowed: readonly string[],
  requested: string | undefined,
): Promise<TokenAnswer> {
  const wanted = requested === undefined ? allowed : requested.split(" ").filter((scope) => scope !== "");
  if (wanted.length === 0 || wanted.some((scope) => !allowed.includes(scope))) {
    throw new Problem(400, "invalid_scope", "The client may not have this scope.");
  }
  const scope = [...new Set(wanted)].join(" ");
  const expiresInSeconds = parts.accessSeconds;
  const accessToken = await parts.tokens.sign({ subject: clientId, clientId, scope, expiresInSeconds });
  return { access_token: accessToken, token_type: "Bearer", expires_in: expiresInSeconds, scope };
}

async function refreshedToken(
  parts: IdentityParts,
  clientId: string,
  parameters: Map<string, string>,
): Promise<TokenAnswer> {
  const refreshToken = parameters.get("refresh_token");
  if (refreshToken === undefined) throw new Problem(400, "invalid_request", "refresh_token is missing.");
  const { accessSeconds, refreshSeconds } = parts;
  const presented = { refreshToken, clientId, refreshSeconds, accessSeconds: accessSecondsMax };
  const rotation = await rotateSession(parts.postgres, presented);
  if (rotation.outcome === "rotated")
    return await sessionToken(parts, clientId, rotation.session, accessSeconds);
  if (rotation.outcome === "reused") parts.onRevoked([rotation.familyId]);
  throw new Problem(400, "invalid_grant", "The refresh token is not valid any more.");
}

async function sessionToken(
  parts: IdentityParts,
  clientId: string,
  session: Session,
  expiresInSeconds: number,
): Promise<TokenAnswer> {
  const { subject, scope, familyId, refreshToken } = session;
  const accessToken = await parts.tokens.sign({ subject, clientId, scope, familyId, expiresInSeconds });
  return {
    access_token: accessToken,
    token_type: "Bearer",
    expires_in: expiresInSeconds,
    scope,
    refresh_token: refreshToken,
  };
}

// RFC 7009, 2.2: an unknown token is answered like a known one.
async function revoke(parts: IdentityParts, client: Client, token: string): Promise<void> {
  const presented = { refreshToken: token, clientId: client.id, accessSeconds: accessSecondsMax };
  const familyId = await endSession(parts.postgres, presented);
  if (familyId !== null) return parts.onRevoked([familyId]);
  const living = await parts.tokens.inspect(token);
  const [tokenId] = living?.caller.tokenIds ?? [];
  if (living === null || tokenId === undefined) return;
  if (!(await mayRevoke(parts.postgres, client, living.clientId))) return;
  await parts.postgres.query(revokeTokenSql, [tokenId, new Date((living.caller.expiresAt + 60) * 1000)]);
  parts.onRevoked([tokenId]);
}

// A token that a backend or another issuer made names none of our clients: who may sign users in takes it back.
async function mayRevoke(postgres: Postgres, client: Client, holderId: unknown): Promise<boolean> {
  if (holderId === client.id) return true;
  if (!client.scopes.includes("admin")) return false;
  return typeof holderId !== "string" || !(await isClient(postgres, holderId));
}

const userTokenCheck = TypeCompiler.Compile(userTokenBody);

// Checked here and not by the route, whose document would say that a body must be there.
function userScope(requested: string | undefined): string {
  return knownScopes(requested ?? "messages:read messages:write", ["messages:read", "messages:write"]).join(
    " ",
  );
}

function knownScopes(requested: string, allowed: readonly Scope[]): Scope[] {
  const wanted = new Set(requested.split(" ").filter((scope) => scope !== ""));
  const granted = allowed.filter((scope) => wanted.has(scope));
  if (granted.length === 0 || granted.length !== wanted.size) {
    throw invalidInput("/scope", `must be of: ${allowed.join(" ")}`, "invalid_scope");
  }
  return granted;
}

// RFC 6749, 5.1.
function tokenResponse(answer: TokenAnswer): Response {
  return Response.json(answer, { headers: { "cache-control": "no-store" } });
}
