// What an operator may look at, and set going again, over HTTP; scope admin.
import { TypeCompiler } from "@sinclair/typebox/compiler";
import { Elysia } from "elysia";
import outboxStateSql from "../../sql/admin/outbox-state.sql" with { type: "text" };
import { describeBody, describeCall } from "../edge/describe.ts";
import { bodyBytesMax, type Edge, optionalJsonBody } from "../edge/edge.ts";
import { checked } from "../edge/problems.ts";
import { deadLetterListAnswer, outboxAnswer, replayAnswer, replaysAnswer } from "../model/answers.ts";
import { deadLetterParams, deadLetterQuery, replayBody } from "../model/schemas.ts";
import type { Postgres } from "../platform/postgres.ts";
import { listDeadLetters, replayDeadLetter, replayDeadLetters } from "./dead-letters.ts";

interface ShardState {
  shard: number;
  owner: string | null;
  epoch: number;
  pending_rows: number;
  oldest_row_age_seconds: number;
}

const replayCheck = TypeCompiler.Compile(replayBody);
const tag = "admin";
const describe = {
  outbox: describeCall(tag, "Shows what waits for Kafka, by shard", { 200: outboxAnswer }, [403]),
  list: describeCall(tag, "Lists dead letters, newest first", { 200: deadLetterListAnswer }, [400, 403]),
  replay: describeCall(
    tag,
    "Sends a dead letter on its way again",
    { 202: replayAnswer },
    [400, 403, 404, 409],
  ),
  replayMany: describeCall(
    tag,
    "Sends the open dead letters of a conversation, or all, on their way again",
    { 202: replaysAnswer },
    [400, 403, 413, 415],
  ),
};

/** GET /v1/admin/outbox and /v1/admin/dead-letters, and the calls that replay dead letters. */
export function adminRoutes(edge: Edge, postgres: Postgres) {
  return new Elysia({ prefix: "/v1/admin" })
    .use(edge.withCaller("admin"))
    .get(
      "/outbox",
      async () => {
        const rows = await postgres.query<ShardState>(outboxStateSql);
        return {
          pending_rows: rows.reduce((sum, row) => sum + row.pending_rows, 0),
          oldest_row_age_seconds: Math.max(0, ...rows.map((row) => row.oldest_row_age_seconds)),
          shards: rows.map(({ shard, pending_rows, owner, epoch }) => ({
            shard,
            pending_rows,
            owner,
            epoch,
          })),
        };
      },
      { detail: describe.outbox },
    )
    .get("/dead-letters", ({ query }) => listDeadLetters(postgres, query), {
      query: deadLetterQuery,
      detail: describe.list,
    })
    .post(
      "/dead-letters/replay",
      async ({ body, traceparent, set }) => {
        const { conversation_id } = checked(replayCheck, body);
        const replays = await replayDeadLetters(postgres, conversation_id, traceparent);
        set.status = 202;
        return replays;
      },
      {
        parse: optionalJsonBody(bodyBytesMax.message),
        detail: { ...describe.replayMany, ...describeBody(replayBody, ["application/json"], false) },
      },
    )
    .post(
      "/dead-letters/:id/replay",
      async ({ params, traceparent, set }) => {
        await replayDeadLetter(postgres, params.id, traceparent);
        set.status = 202;
        return { id: params.id.toLowerCase(), state: "enqueued" };
      },
      { parse: "none", params: deadLetterParams, detail: describe.replay },
    );
}
