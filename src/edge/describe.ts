// How a call is shown in the OpenAPI document.
import type { TSchema } from "@sinclair/typebox";
import type { DocumentDecoration } from "elysia";

type Answers = NonNullable<DocumentDecoration["responses"]>;

/**
 * A call's summary, its answers by status (a schema of JSON, the content type of anything else, or null for no body),
 * and the problems that it can give beside 401, 500 and 503, and beside 408 if it reads a body, which 415 tells.
 */
export function describeCall(
  tag: string,
  summary: string,
  answers: Record<number, TSchema | string | null>,
  problems: readonly number[],
): DocumentDecoration {
  const described = describeAnswers(tag, summary, answers);
  const responses: Answers = { ...described.responses };
  const ofBodies = problems.includes(415) ? [408] : [];
  for (const status of [401, 500, 503, ...ofBodies, ...problems]) {
    responses[status] = {
      description: "A problem (RFC 9457).",
      content: { "application/problem+json": { schema: { $ref: "#/components/schemas/Problem" } } },
    };
  }
  return { ...described, responses };
}

/** The same without any problem. */
export function describeAnswers(
  tag: string,
  summary: string,
  answers: Record<number, TSchema | string | null>,
): DocumentDecoration {
  const responses: Answers = {};
  for (const [status, answer] of Object.entries(answers)) {
    const content =
      typeof answer === "string"
        ? { [answer]: { schema: { type: "string" as const } } }
        : answer && { "application/json": { schema: asOpenApi(answer) } };
    responses[status] = { description: summary, ...(content && { content }) };
  }
  return { summary, tags: [tag], responses };
}

/** The body of a call that reads it itself. */
export function describeBody(schema: TSchema, contentTypes: readonly string[]): DocumentDecoration {
  const content = Object.fromEntries(contentTypes.map((type) => [type, { schema: asOpenApi(schema) }]));
  return { requestBody: { required: true, content } };
}

// TypeBox schemas are JSON Schemas; OpenAPI 3.1's typings do not know the symbols beside them.
function asOpenApi(schema: TSchema): object {
  return schema;
}
