// What every request passes before a route: room for it, its trace, its caller, its body. And what every error becomes.
import { Elysia } from "elysia";
import { authenticate } from "../identity/authenticate.ts";
import { type Caller, requireScope, type Scope } from "../identity/caller.ts";
import type { Revocations } from "../identity/revocation.ts";
import { revokedToken, type Tokens } from "../identity/tokens.ts";
import { overloaded, Problem } from "../model/errors.ts";
import { checkValue, parseJson, readBody } from "../platform/json.ts";
import type { Log } from "../platform/log.ts";
import { traceIdOf, traceparentOf } from "../platform/trace.ts";
import { problemOf, problemResponse } from "./problems.ts";
import { checkUrl } from "./url.ts";

const messagePath = /^\/v1\/messages(\/batch)?\/?$/;
const healthPath = /^\/(healthz|readyz|metrics)\/?$/;
const open = /^\/(healthz|readyz|metrics|docs|openapi\.json|oauth)(\/|$)/;

/** What is known of a request before its route runs. */
interface RequestFacts {
  caller: Caller | null;
  traceparent: string;
}

const unavailableLogIntervalMs = 1000;

/** Requests that are not answered yet; each holds a connection, a body and what its route has in hand. */
const requestsUnderWayMax = 4096;

/** Bounds of bodies, in bytes. */
export const bodyBytesMax = { message: 64 * 1024, batch: 2 * 1024 * 1024 };

/** What the edge asks before it does anything with a request. */
export interface Admission {
  /** No message would be taken now, so that none need be read. */
  isQueueFull(): boolean;
  /** Event streams are requests too, which are under way for as long as they like and have a bound of their own. */
  eventStreams(): number;
}

/** The edge of one server. */
export interface Edge {
  /** To be used once by the root. */
  plugin: ReturnType<typeof rootPlugin>;
  /** Routes below it need a token with this scope, and see `caller` and `traceparent`. */
  withCaller(scope: Scope, options?: { revocation: "in_statement" }): ReturnType<typeof callerPlugin>;
}

/** Makes the edge: everything but the open paths needs a bearer token. */
export function openEdge(tokens: Tokens, revocations: Revocations, admission: Admission, log: Log): Edge {
  const facts = new WeakMap<Request, RequestFacts>();
  return {
    plugin: rootPlugin(tokens, facts, admission, log),
    withCaller: (scope, options) => callerPlugin(facts, scope, options === undefined ? revocations : null),
  };
}

function rootPlugin(tokens: Tokens, facts: WeakMap<Request, RequestFacts>, admission: Admission, log: Log) {
  const refuseExcess = excessRefuser(admission);
  // While a part is away every request fails alike: one line a second says so.
  let unavailableLoggedAt = Number.NEGATIVE_INFINITY;
  const logUnavailable = (problem: Problem, requestId: string, path: string) => {
    if (performance.now() - unavailableLoggedAt < unavailableLogIntervalMs) return;
    unavailableLoggedAt = performance.now();
    log.warn({ code: problem.code, err: problem.cause, request_id: requestId, path }, "requests are refused");
  };

  return new Elysia({ name: "edge" })
    .onRequest(({ request, server, set }): Response | Promise<void> | undefined => {
      const refusal = refuseExcess(request, server?.pendingRequests ?? 0);
      if (refusal !== undefined) return refusal;
      const known: RequestFacts = {
        caller: null,
        traceparent: traceparentOf(request.headers.get("traceparent")),
      };
      facts.set(request, known);
      set.headers["x-request-id"] = traceIdOf(known.traceparent);
      checkUrl(request.url);
      if (open.test(pathOf(request.url))) return undefined;
      const caller = authenticate(tokens, request);
      if (caller instanceof Promise) {
        return caller.then((verified) => {
          known.caller = verified;
        });
      }
      known.caller = caller;
      return undefined;
    })
    .onError({ as: "global" }, ({ code, error, request }) => {
      const traceparent = facts.get(request)?.traceparent ?? traceparentOf(null);
      const requestId = traceIdOf(traceparent);
      const path = pathOf(request.url);
      const known = problemOf(code, error);
      if (known === null) log.error({ err: error, request_id: requestId, path }, "request failed");
      else if (known.status >= 500) logUnavailable(known, requestId, path);
      return problemResponse(known ?? internalError(), requestId, path);
    });
}

// The cheapest answer there is, since whoever has too much to do gives many: neither the token nor the body is looked
// at, and nothing is thrown.
function excessRefuser({ isQueueFull, eventStreams }: Admission) {
  const problem = overloaded();
  return (request: Request, pendingRequests: number): Response | undefined => {
    const isCrowded = pendingRequests - eventStreams() > requestsUnderWayMax;
    if (!isCrowded && !isQueueFull()) return undefined;
    const path = pathOf(request.url);
    const isRefused = isCrowded
      ? !healthPath.test(path)
      : request.method === "POST" && messagePath.test(path);
    return isRefused ? problemResponse(problem, traceIdOf(traceparentOf(null)), path) : undefined;
  };
}

function internalError(): Problem {
  return new Problem(500, "internal_error", "Something went wrong here; a retry with the same id is safe.");
}

function callerPlugin(facts: WeakMap<Request, RequestFacts>, scope: Scope, revocations: Revocations | null) {
  return new Elysia({ name: `caller:${scope}:${revocations === null}` })
    .derive({ as: "scoped" }, ({ request }) => {
      const { caller, traceparent } = facts.get(request) as RequestFacts;
      if (caller === null) throw new Problem(401, "missing_token", "A bearer token is needed.");
      requireScope(caller, scope);
      return { caller, traceparent };
    })
    .onTransform({ as: "scoped" }, async ({ request }) => {
      const caller = facts.get(request)?.caller;
      if (revocations !== null && caller && (await revocations.isRevoked(caller))) throw revokedToken();
    });
}

/** What a route's `parse` takes: our parser. "json" never runs; it tells the documents what the body is. */
type BodyParsers = [(context: { request: Request }) => Promise<unknown>, "json"];

/** For routes with a JSON body of at most so many bytes; `check` as `readJson` has it. */
export function jsonBody(bytesMax: number, check?: (value: unknown) => void): BodyParsers {
  return [({ request }) => readJson(request, bytesMax, check), "json"];
}

/** For routes whose body may be left out: none at all, or an empty one, counts as {}. */
export function optionalJsonBody(bytesMax: number): BodyParsers {
  const isEmpty = ({ body, headers }: Request) => body === null || headers.get("content-length") === "0";
  return [async ({ request }) => (isEmpty(request) ? {} : await readJson(request, bytesMax)), "json"];
}

/** Throws Problem 415, 413 and 400; `check` throws for what nobody can hold, before it goes anywhere else. */
async function readJson(
  request: Request,
  bytesMax: number,
  check: (value: unknown) => void = checkValue,
): Promise<unknown> {
  const type = request.headers.get("content-type")?.split(";")[0]?.trim().toLowerCase();
  if (type !== "application/json") {
    throw new Problem(415, "unsupported_media_type", "The body must be application/json.");
  }
  const value = parseJson(await readBody(request, bytesMax));
  check(value);
  return value;
}

// Without the query. Of HTTP/1.0 without Host, as load balancers ask for health, Bun gives a URL that is a path only.
function pathOf(url: string): string {
  const start = url.startsWith("/") ? 0 : url.indexOf("/", 8);
  const end = url.indexOf("?", start);
  return end === -1 ? url.slice(start) : url.slice(start, end);
}
