// A pool with an end: the driver lets any number of queries wait for a connection.
import { unavailable } from "../model/errors.ts";
import type { Postgres } from "./postgres.ts";

/** The same pool; a query beyond so many at once rejects with Problem 503 `database_busy`, and was never asked. */
export function boundQueries(postgres: Postgres, queriesMax: number): Postgres {
  let queries = 0;
  return {
    ...postgres,
    async query(text, args) {
      if (queries >= queriesMax) {
        throw unavailable("database_busy", "Too much is being asked of the database; try again.");
      }
      queries += 1;
      try {
        return await postgres.query(text, args);
      } finally {
        queries -= 1;
      }
    },
  };
}
