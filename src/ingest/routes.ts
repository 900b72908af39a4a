// The calls that store messages: one, a batch, and later changes to one.
import { Elysia } from "elysia";
import { describeLimitedCall } from "../edge/describe.ts";
import { bodyBytesMax, type Edge, jsonBody } from "../edge/edge.ts";
import { problemDocument, problemOf } from "../edge/problems.ts";
import type { RateLimits } from "../edge/rate-limits.ts";
import type { Caller } from "../identity/caller.ts";
import { acceptedAnswer, batchAnswer } from "../model/answers.ts";
import { Problem } from "../model/errors.ts";
import { changeBody, changeHeaders, messageBatchBody, messageBody, messageParams } from "../model/schemas.ts";
import { checkValue } from "../platform/json.ts";
import { traceIdOf } from "../platform/trace.ts";
import { type AcceptedMessage, acceptMessage, type MessageBody, readMessageBody } from "./accept.ts";
import { type Changes, changeMessage } from "./change.ts";
import type { Collector } from "./collector.ts";

const describe = {
  post: describeLimitedCall(
    "messages",
    "Posts a message",
    { 202: acceptedAnswer },
    [400, 403, 404, 413, 415, 422],
  ),
  batch: describeLimitedCall(
    "messages",
    "Posts up to 500 messages, each judged alone",
    { 200: batchAnswer },
    [400, 403, 413, 415],
  ),
  edit: describeLimitedCall(
    "messages",
    "Edits a message",
    { 202: acceptedAnswer },
    [400, 403, 404, 409, 413, 415, 422],
  ),
  delete: describeLimitedCall(
    "messages",
    "Deletes a message",
    { 202: acceptedAnswer },
    [400, 403, 404, 409, 422],
  ),
};

/** POST /messages; the batch function itself refuses revoked tokens. */
export function messageRoutes(edge: Edge, collector: Collector, limits: RateLimits) {
  return new Elysia({ prefix: "/v1" })
    .use(edge.withCaller("messages:write", { revocation: "in_statement" }))
    .post(
      "/messages",
      async ({ caller, traceparent, body, set }) => {
        const accepted = await limits.within(countedFor(caller, body), set.headers, () =>
          acceptMessage(collector, caller, body, traceparent),
        );
        set.status = 202;
        if (accepted.replay) set.headers["idempotent-replay"] = "true";
        return accepted;
      },
      { parse: jsonBody(bodyBytesMax.message), body: messageBody, detail: describe.post },
    );
}

/**
 * POST /messages/batch; a revoked token is refused before its rows are, so that the answer is not 200. It is one
 * request of the user, and each row a message of its conversation.
 */
export function batchRoutes(edge: Edge, collector: Collector, limits: RateLimits) {
  return new Elysia({ prefix: "/v1" }).use(edge.withCaller("messages:write")).post(
    "/messages/batch",
    async ({ caller, traceparent, body, set }) => {
      const { headers } = set;
      const accept = (message: MessageBody) =>
        limits.within({ conversation: message.conversation_id }, headers, () =>
          acceptMessage(collector, caller, message, traceparent),
        );
      return await limits.within({ user: caller.userId }, headers, async () => ({
        results: await Promise.all(body.messages.map((row) => judgeRow(row, traceparent, accept))),
      }));
    },
    {
      parse: jsonBody(bodyBytesMax.batch, checkBatch),
      body: messageBatchBody,
      detail: describe.batch,
    },
  );
}

/** PATCH and DELETE of a message: each stores an event of its own. */
export function changeRoutes(edge: Edge, changes: Changes, limits: RateLimits) {
  return new Elysia({ prefix: "/v1/conversations/:conversation_id/messages" })
    .use(edge.withCaller("messages:write"))
    .patch(
      "/:sequence_number",
      ({ caller, traceparent, params, body, headers, set }) =>
        limits.within(countedFor(caller, params), set.headers, () =>
          changeMessage(changes, { caller, traceparent, params, payload: body.payload, headers, set }),
        ),
      {
        parse: jsonBody(bodyBytesMax.message),
        body: changeBody,
        params: messageParams,
        headers: changeHeaders,
        detail: describe.edit,
      },
    )
    .delete(
      "/:sequence_number",
      ({ caller, traceparent, params, headers, set }) =>
        limits.within(countedFor(caller, params), set.headers, () =>
          changeMessage(changes, { caller, traceparent, params, payload: null, headers, set }),
        ),
      { parse: "none", params: messageParams, headers: changeHeaders, detail: describe.delete },
    );
}

function countedFor({ userId }: Caller, { conversation_id }: { conversation_id: string }) {
  return { user: userId, conversation: conversation_id };
}

// A row that nobody can hold becomes its problem here, since what validates the batch may print it.
function checkBatch(value: unknown): void {
  const batch = value as { messages?: unknown } | null;
  const rows = batch?.messages;
  if (!Array.isArray(rows)) return checkValue(value);
  checkValue({ ...batch, messages: [] });
  for (const [index, row] of rows.entries()) rows[index] = problemIn(row) ?? row;
}

function problemIn(row: unknown): Problem | null {
  try {
    checkValue(row);
    return null;
  } catch (error) {
    return problemOf("UNKNOWN", error);
  }
}

// Each row is judged alone: a bad one gets its problem, its neighbours are stored.
async function judgeRow(
  row: unknown,
  traceparent: string,
  accept: (message: MessageBody) => Promise<AcceptedMessage>,
) {
  try {
    if (row instanceof Problem) throw row;
    const body = readMessageBody(row);
    if (Buffer.byteLength(JSON.stringify(row)) > bodyBytesMax.message) {
      throw new Problem(413, "body_too_large", `A message has more than ${bodyBytesMax.message} bytes.`);
    }
    return { status: 202, ...(await accept(body)) };
  } catch (error) {
    const problem = problemOf("UNKNOWN", error);
    if (problem === null) throw error;
    return problemDocument(problem, traceIdOf(traceparent));
  }
}
