// What an operator may look at over HTTP; scope admin.
import { Elysia } from "elysia";
import outboxStateSql from "../../sql/admin/outbox-state.sql" with { type: "text" };
import { describeCall } from "../edge/describe.ts";
import type { Edge } from "../edge/edge.ts";
import { outboxAnswer } from "../model/answers.ts";
import type { Postgres } from "../platform/postgres.ts";

interface ShardState {
  shard: number;
  owner: string | null;
  epoch: number;
  pending_rows: number;
  oldest_row_age_seconds: number;
}

const describe = {
  outbox: describeCall("admin", "Shows what waits for Kafka, by shard", { 200: outboxAnswer }, [403]),
};

/** GET /v1/admin/outbox. */
export function adminRoutes(edge: Edge, postgres: Postgres) {
  return new Elysia({ prefix: "/v1/admin" }).use(edge.withCaller("admin")).get(
    "/outbox",
    async () => {
      const rows = await postgres.query<ShardState>(outboxStateSql);
      return {
        pending_rows: rows.reduce((sum, row) => sum + row.pending_rows, 0),
        oldest_row_age_seconds: Math.max(0, ...rows.map((row) => row.oldest_row_age_seconds)),
        shards: rows.map(({ shard, pending_rows, owner, epoch }) => ({ shard, pending_rows, owner, epoch })),
      };
    },
    { detail: describe.outbox },
  );
}
