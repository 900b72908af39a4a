// How a call is shown in the OpenAPI document.
import type { TSchema } from "@sinclair/typebox";
import type { DocumentDecoration } from "elysia";

type Answers = NonNullable<DocumentDecoration["responses"]>;

/** A call's summary, its answers by status (null: no body), and the problems it can give beside 401, 500 and 503. */
export function describeCall(
  tag: string,
  summary: string,
  answers: Record<number, TSchema | null>,
  problems: readonly number[],
): DocumentDecoration {
  const responses: Answers = {};
  for (const [status, schema] of Object.entries(answers)) {
    responses[status] =
      schema === null
        ? { description: summary }
        : { description: summary, content: { "application/json": { schema: asOpenApi(schema) } } };
  }
  for (const status of [401, 500, 503, ...problems]) {
    responses[status] = {
      description: "A problem (RFC 9457).",
      content: { "application/problem+json": { schema: { $ref: "#/components/schemas/Problem" } } },
    };
  }
  return { summary, tags: [tag], responses };
}

// TypeBox schemas are JSON Schemas; OpenAPI 3.1's typings do not know the symbols beside them.
function asOpenApi(schema: TSchema): object {
  return schema;
}
