// The number of shards: one for each partition of the topics, the same for everybody who shares the database.
import prepareShardsSql from "../../sql/outbox/prepare-shards.sql" with { type: "text" };
import { OperatingError } from "../model/errors.ts";
import { firstRow, type Postgres } from "../platform/postgres.ts";

/**
 * Makes the lease rows of `shards` shards, once for a database; called again with the same number it changes
 * nothing. Throws OperatingError `shards_mismatch` when the database already has another number.
 */
export async function prepareShards(postgres: Postgres, shards: number): Promise<void> {
  const kept = firstRow(await postgres.query<{ shards: number }>(prepareShardsSql, [shards]));
  if (kept.shards !== shards) {
    const message = `KAFKA_PARTITIONS is ${shards}, but this database was set up with ${kept.shards}; set it to that`;
    throw new OperatingError("shards_mismatch", { message });
  }
}
