// How a call is shown in the OpenAPI document.
import type { TSchema } from "@sinclair/typebox";
import type { DocumentDecoration } from "elysia";

type Answers = NonNullable<DocumentDecoration["responses"]>;

const wholeNumber = (description: string) => ({
  description,
  schema: { type: "integer" as const, minimum: 0 },
});
const rateHeaders = {
  "RateLimit-Limit": wholeNumber("Requests that may come at once, of the limit of which the least is left."),
  "RateLimit-Remaining": wholeNumber("Requests that may come now."),
  "RateLimit-Reset": wholeNumber("Seconds until all of them may come again."),
};
const refusalHeaders = { ...rateHeaders, "Retry-After": wholeNumber("Seconds until one more may come.") };

const problemAnswer = {
  description: "A problem (RFC 9457).",
  content: { "application/problem+json": { schema: { $ref: "#/components/schemas/Problem" } } },
};

/**
 * A call's summary, its answers by status (a schema of JSON, the content type of anything else, or null for no body),
 * and the problems that it can give beside 400 (any URL may be malformed), 401, 500 and 503, and beside 408 if it reads
 * a body, which 415 tells.
 */
export function describeCall(
  tag: string,
  summary: string,
  answers: Record<number, TSchema | string | null>,
  problems: readonly number[],
): DocumentDecoration {
  const ofBodies = problems.includes(415) ? [408] : [];
  const all = [400, 401, 500, 503, ...ofBodies, ...problems];
  return withProblems(describeAnswers(tag, summary, answers), all);
}

/** The same with these problems and no others. */
export function withProblems(described: DocumentDecoration, problems: readonly number[]): DocumentDecoration {
  const responses: Answers = { ...described.responses };
  for (const status of problems) responses[status] = problemAnswer;
  return { ...described, responses };
}

/** The same of a call that rate limits apply to: it may answer 429, and tells how they stand. */
export function describeLimitedCall(
  tag: string,
  summary: string,
  answers: Record<number, TSchema | string | null>,
  problems: readonly number[],
): DocumentDecoration {
  const { responses, ...described } = describeCall(tag, summary, answers, problems);
  const limited: Answers = { ...responses, 429: { ...problemAnswer, headers: refusalHeaders } };
  for (const status of Object.keys(answers)) {
    limited[status] = { description: summary, ...limited[status], headers: rateHeaders };
  }
  return { ...described, responses: limited };
}

/** A call without any problem. */
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

/** The body of a call that reads it itself, or of one that may do without it. */
export function describeBody(
  schema: TSchema,
  contentTypes: readonly string[],
  required = true,
): DocumentDecoration {
  const content = Object.fromEntries(contentTypes.map((type) => [type, { schema: asOpenApi(schema) }]));
  return { requestBody: { required, content } };
}

// TypeBox schemas are JSON Schemas; OpenAPI 3.1's typings do not know the symbols beside them.
function asOpenApi(schema: TSchema): object {
  return schema;
}
