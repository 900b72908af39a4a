// The one place where anything thrown becomes problem+json (RFC 9457). Nothing of the inside leaves here.
import { Kind, type Static, type TSchema, Type } from "@sinclair/typebox";
import type { TypeCheck } from "@sinclair/typebox/compiler";
import {
  DefaultErrorFunction,
  SetErrorFunction,
  type ValueError,
  ValueErrorType,
} from "@sinclair/typebox/errors";
import type { ValidationError } from "elysia";
import { type InputFault, Problem, unavailable } from "../model/errors.ts";
import { isConnectionFailure } from "../platform/postgres.ts";

const faultsMax = 20;
const pathCharactersMax = 200;

const titles: Record<number, string> = {
  400: "Bad Request",
  401: "Unauthorized",
  403: "Forbidden",
  404: "Not Found",
  408: "Request Timeout",
  409: "Conflict",
  413: "Content Too Large",
  415: "Unsupported Media Type",
  422: "Unprocessable Content",
  429: "Too Many Requests",
  500: "Internal Server Error",
  503: "Service Unavailable",
};

/** The members of a problem document, as OpenAPI shows them. */
export const problemSchema = Type.Object({
  type: Type.String(),
  title: Type.String(),
  status: Type.Integer(),
  code: Type.String({ description: "Stable, snake_case." }),
  detail: Type.String(),
  request_id: Type.String(),
  errors: Type.Optional(Type.Array(Type.Object({ path: Type.String(), message: Type.String() }))),
});

SetErrorFunction((error) => {
  const { schema, errorType } = error;
  if (errorType === ValueErrorType.StringPattern && schema.description)
    return `Expected ${schema.description}`;
  if (errorType !== ValueErrorType.Kind) return DefaultErrorFunction(error);
  return schema[Kind] === "Text"
    ? `Expected a string of ${schema["minLength"]} to ${schema["maxLength"]} characters`
    : `Expected a whole number from ${schema["minimum"]} to ${schema["maximum"]}`;
});

/** The document's members for a problem; `request_id` is the request's trace id. */
export function problemDocument(problem: Problem, requestId: string): Record<string, unknown> {
  return {
    type: "about:blank",
    title: titles[problem.status] ?? "Error",
    status: problem.status,
    code: problem.code,
    detail: problem.detail,
    request_id: requestId,
    ...(problem.errors === undefined ? {} : { errors: problem.errors }),
  };
}

/** The response for a problem. On /oauth paths it has also the members that RFC 6749, 5.2 asks for. */
export function problemResponse(problem: Problem, requestId: string, path: string): Response {
  const document = problemDocument(problem, requestId);
  if (path.startsWith("/oauth/")) {
    document["error"] = problem.code;
    document["error_description"] = problem.detail;
  }
  const headers: Record<string, string> = {
    "content-type": "application/problem+json",
    "cache-control": "no-store",
    "x-request-id": requestId,
  };
  if (problem.status === 401) headers["www-authenticate"] = challenge(problem, path);
  // The rest of a body that was not waited for would be taken for the next request.
  if (problem.status === 408) headers["connection"] = "close";
  if (problem.retryAfterSeconds !== undefined) headers["retry-after"] = String(problem.retryAfterSeconds);
  return new Response(JSON.stringify(document), { status: problem.status, headers });
}

// RFC 6750, 3: an error code only when a token was there.
function challenge(problem: Problem, path: string): string {
  if (path.startsWith("/oauth/")) return 'Basic realm="chat4all"';
  return problem.code === "missing_token"
    ? 'Bearer realm="chat4all"'
    : 'Bearer realm="chat4all", error="invalid_token"';
}

/** Any error to the problem that its caller may see; null when it is a fault of ours that belongs in the log. */
export function problemOf(code: string | number, error: unknown): Problem | null {
  if (error instanceof Problem) return error;
  if (code === "NOT_FOUND") return new Problem(404, "route_not_found", "There is no such call.");
  // What a body parser of ours throws comes wrapped.
  if (code === "PARSE" && (error as Error).cause instanceof Problem) return (error as Error).cause as Problem;
  if (code === "PARSE") return new Problem(400, "malformed_body", "The body cannot be read.");
  if (code === "VALIDATION") return validationProblem(error as ValidationError);
  if (isConnectionFailure(error) || isTimeout(error)) {
    return unavailable("database_unavailable", "The database does not answer; try again.", error);
  }
  return null;
}

/** Why a value is not as its schema says, as a problem 400. */
export function schemaProblem(errors: Iterable<ValueError>): Problem {
  return new Problem(400, "invalid_request", "The request is not as the schema says.", {
    errors: faultsOf(errors),
  });
}

/** A value that its schema has passed; throws Problem 400 otherwise. */
export function checked<Schema extends TSchema>(check: TypeCheck<Schema>, value: unknown): Static<Schema> {
  if (!check.Check(value)) throw schemaProblem(check.Errors(value));
  return value;
}

function validationProblem(error: ValidationError): Problem {
  const { validator, value } = error as unknown as {
    validator: { Errors(value: unknown): Iterable<ValueError> };
    value: unknown;
  };
  return schemaProblem(validator.Errors(value));
}

function faultsOf(errors: Iterable<ValueError>): InputFault[] {
  const faults = new Map<string, InputFault>();
  for (const error of errors) {
    for (const { path, message } of detailsOf(error)) {
      const shown = path.slice(0, pathCharactersMax);
      if (!faults.has(shown)) faults.set(shown, { path: shown, message });
    }
    if (faults.size >= faultsMax) break;
  }
  return [...faults.values()].slice(0, faultsMax);
}

// Of a union only the variant that is meant is of interest: the one whose literal `type` fits.
function detailsOf(error: ValueError): ValueError[] {
  if (error.type !== ValueErrorType.Union) return [error];
  const variants: TSchema[] = error.schema["anyOf"];
  const meant = variants.findIndex((variant) => {
    const literal: unknown = variant["properties"]?.type?.const;
    return literal !== undefined && literal === (error.value as { type?: unknown } | null)?.type;
  });
  const iterator = error.errors[meant];
  return iterator === undefined ? [error] : [...iterator];
}

function isTimeout(error: unknown): boolean {
  const code = (error as { code?: unknown } | null)?.code;
  return code === "57014" || code === "55P03";
}
