// Postgres for a command that runs once: two connections, and failures that say what to look at.
import { OperatingError } from "../model/errors.ts";
import { isConnectionFailure, openPostgres, type Postgres } from "../platform/postgres.ts";
import { placeOf } from "./output.ts";

const connectTimeoutSeconds = 5;
const statementTimeoutMs = 120_000;

/** Lends a pool to `work`. Throws OperatingError `postgres_unavailable` when the database can not be reached. */
export async function withPostgres<T>(
  databaseUrl: string,
  work: (postgres: Postgres) => Promise<T>,
): Promise<T> {
  await using postgres = openPostgres({
    url: databaseUrl,
    connectionsMax: 2,
    applicationName: "chat4all-cli",
    connectTimeoutSeconds,
    statementTimeoutMs,
  });
  try {
    return await work(postgres);
  } catch (error) {
    throw explained(error, databaseUrl);
  }
}

// 42P01 is a missing table, class 28 a refused sign-in, 3D a database that is not there (Postgres, appendix A).
function explained(error: unknown, databaseUrl: string): unknown {
  const { code, message } = error as { code?: unknown; message?: string };
  if (code === "42P01") {
    const advice = "the database lacks tables; run `chat4all migrate` first";
    return new OperatingError("schema_older", { message: advice, cause: error });
  }
  const isRefusal = typeof code === "string" && /^(28|3D)/.test(code);
  if (!isRefusal && !isConnectionFailure(error)) return error;
  const reason = isRefusal ? message : String(code);
  return new OperatingError("postgres_unavailable", {
    message: `Postgres at ${placeOf(databaseUrl)} can not be used (${reason}); check DATABASE_URL and the server`,
    cause: error,
  });
}
