// From a request to its caller. Sockets and event streams may carry the token in the query (RFC 6750, 2.3).
import { Problem } from "../model/errors.ts";
import type { Caller } from "./caller.ts";
import type { Tokens } from "./tokens.ts";

/** Answers the caller of a request; throws Problem 401 without a valid token. */
export function authenticate(tokens: Tokens, request: Request): Caller | Promise<Caller> {
  const header = request.headers.get("authorization");
  if (header !== null) {
    if (header.length < 8 || header.slice(0, 7).toLowerCase() !== "bearer ") throw missingToken();
    return tokens.verify(header.slice(7).trim());
  }
  const token = queryToken(request.url);
  if (token === null) throw missingToken();
  return tokens.verify(token);
}

const streamPath = /^https?:\/\/[^/]*\/v1\/(stream|conversations\/[^/?]+\/events)\/?\?/;

function queryToken(url: string): string | null {
  return streamPath.test(url) ? new URL(url).searchParams.get("access_token") : null;
}

function missingToken(): Problem {
  return new Problem(401, "missing_token", "A bearer token is needed in the Authorization header.");
}
