// What must hold of every answer to a hostile request, whatever it was.
import { documentChecker, type OpenApiDocument } from "../support/documented-server.ts";
import { echoMark, expectProblemDocument } from "../support/problems.ts";
import type { Answer } from "../support/server.ts";
import { hasEffect, type Stored, storedAfter } from "./effects.ts";
import { callsOfDocument, type HostileRequest } from "./requests.ts";

/** Judges answers by the document; throws with what is wrong. */
export interface Judge {
  /** Which call of the document this is, if any. */
  callOf(request: Pick<HostileRequest, "method" | "target">): string | undefined;
  /** What the answer means for the database: `unknown` where it does not tell. */
  check(request: HostileRequest, answer: Answer): Stored | "unknown";
}

/** Makes a judge by a node's own document. */
export function openJudge(document: OpenApiDocument): Judge {
  const check = documentChecker(document);
  const calls = callsOfDocument(document).map((call) => {
    const [method = "", path = ""] = call.split(" ");
    const pattern = path.replaceAll(/\{\w+\}/g, "[^/]+").replaceAll(".", "\\.");
    return { call, method, pattern: new RegExp(`^${pattern}/?$`) };
  });
  const callOf = ({ method, target }: Pick<HostileRequest, "method" | "target">) => {
    const path = pathOf(target);
    return calls.find((one) => one.method === method && one.pattern.test(path))?.call;
  };
  return {
    callOf,
    check(request, answer) {
      const call = callOf(request);
      // A head beyond 16 KiB is refused by the HTTP server itself, before any of our code runs.
      if (answer.status === 431 && answer.body === "") return {};
      if (answer.status >= 400) checkProblem(answer);
      if (call === undefined) {
        if (![400, 401, 404].includes(answer.status))
          throw new Error(`${request.method} ${request.target} is no call and answers ${answer.status}`);
        return {};
      }
      check(request.method, pathOf(request.target).replace(/(.)\/$/, "$1"), answer);
      const stored = storedAfter(call, answer);
      if (stored === undefined) throw new Error(`${call}: effects.ts does not say what it stores`);
      return stored;
    },
  };
}

/** The calls of a document of which effects.ts says nothing. */
export function callsWithoutEffect(document: OpenApiDocument): string[] {
  return callsOfDocument(document).filter((call) => !hasEffect(call));
}

/** As the server reads it: without the query and without dot segments (RFC 3986, 5.2.4), of which %2e%2e is none. */
function pathOf(target: string): string {
  return new URL(`http://node${target.replaceAll(/%2e/gi, "%252e")}`).pathname;
}

function checkProblem(answer: Answer): void {
  if (answer.headers.get("content-type") !== "application/problem+json")
    throw new Error(`${answer.status} with ${answer.headers.get("content-type")} and not a problem`);
  expectProblemDocument(answer.body, answer.status);
  if (answer.headers.get("x-request-id") !== answer.body.request_id) throw new Error("request_id differs");
  // A path in a body is a member's name; what stood there is never shown.
  if (JSON.stringify({ ...answer.body, errors: null }).includes(echoMark)) throw new Error("shows its input");
}
