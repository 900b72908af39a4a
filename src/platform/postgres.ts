// The one file through which Postgres is reached. Every query is a raw .sql text, prepared and pipelined;
// there are no client-side transactions: whatever must be one commit is one call.
import postgres from "postgres";
import { OperatingError } from "../model/errors.ts";

/** How to reach Postgres, and the bounds of waiting for it. */
export interface PostgresSettings {
  url: string;
  connectionsMax: number;
  /** Shown in pg_stat_activity. */
  applicationName: string;
  connectTimeoutSeconds: number;
  /** Server-side bound of each statement, in milliseconds. */
  statementTimeoutMs: number;
}

type Argument = string | number | boolean | Date | Uint8Array | null | readonly (string | number | null)[];

/** A pool of connections to one database. */
export interface Postgres extends AsyncDisposable {
  /** Runs one statement; bigint comes as number, json as its text. Rejects with the driver's error. */
  query<Row extends object>(text: string, args?: readonly Argument[]): Promise<Row[]>;
  /** Runs a script of several statements without arguments, as one transaction (simple protocol). */
  script(text: string): Promise<void>;
  close(): Promise<void>;
}

const jsonAsText = {
  to: 114,
  from: [114, 3802],
  serialize: (text: string) => text,
  parse: (text: string) => text,
};
const bigintAsNumber = { to: 20, from: [20], serialize: String, parse: Number };

// The driver's own grows to 20 s, shared by the whole pool, and queries wait for it: a server that came back
// would be away for that much longer.
function reconnectPauseSeconds(failures: number): number {
  return Math.min(0.02 * 2 ** failures, 0.5) * (0.5 + Math.random() / 2);
}

// Without `simple: false`, which the driver's types do not know, a statement without arguments is neither prepared
// nor pipelined.
const prepared: { prepare: boolean } = Object.assign({ prepare: true }, { simple: false });

/** Opens a pool lazily: the first query connects. */
export function openPostgres(settings: PostgresSettings): Postgres {
  const sql = postgres(settings.url, {
    max: settings.connectionsMax,
    connect_timeout: settings.connectTimeoutSeconds,
    idle_timeout: 0,
    backoff: reconnectPauseSeconds,
    max_lifetime: null,
    onnotice: () => undefined,
    types: { json: jsonAsText, bigint: bigintAsNumber },
    connection: {
      application_name: settings.applicationName,
      statement_timeout: settings.statementTimeoutMs,
    },
  });
  const close = () => sql.end({ timeout: 5 });

  return {
    async query<Row extends object>(text: string, args: readonly Argument[] = []) {
      return (await sql.unsafe(text, args as never[], prepared)) as unknown as Row[];
    },
    async script(text) {
      await sql.unsafe(text).simple();
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

/** Whether the outcome of the statement is unknown or it never ran: the connection failed, or the server is stopping. */
export function isConnectionFailure(error: unknown): boolean {
  const code = (error as { code?: unknown } | null)?.code;
  if (typeof code !== "string") return false;
  return (
    /^(CONNECTION_|CONNECT_TIMEOUT|ECONN|EPIPE|ENOTFOUND|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|ERR_SOCKET)/.test(
      code,
    ) ||
    // Class 08 connection, 57P server shutting down or starting, 53300 too many connections.
    /^(08|57P0[1-5]|53300)/.test(code)
  );
}

/** The first row of an answer that always has one. */
export function firstRow<Row>(rows: readonly Row[]): Row {
  const row = rows[0];
  if (row === undefined) throw new OperatingError("query_answered_no_row");
  return row;
}
