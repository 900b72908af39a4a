// The one file through which Postgres is reached. Every query is a raw .sql text, prepared and pipelined;
// there are no client-side transactions: whatever must be one commit is one call.
import postgres from "postgres";
import { OperatingError } from "../model/errors.ts";
import { withDeadline } from "./pause.ts";
import { types } from "./postgres-types.ts";

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

/** What an answer may take beyond the server's own bound. */
const deadlineSlackMs = 1_000;
const settleMs = 20;
const closeTimeoutSeconds = 1;

// Without `simple: false`, which the driver's types do not know, a statement without arguments would be neither
// prepared nor pipelined.
const prepared: { prepare: boolean } = Object.assign({ prepare: true }, { simple: false });

/** Opens a pool lazily: the first query connects. A pool that stops answering is replaced. */
export function openPostgres(settings: PostgresSettings): Postgres {
  const deadlineMs = settings.statementTimeoutMs + 1_000 * settings.connectTimeoutSeconds + deadlineSlackMs;
  let pool = connect(settings);
  let answeredAtMs = performance.now();
  let settling: Promise<void> | undefined;

  async function query<Row extends object>(text: string, args: readonly Argument[] = []): Promise<Row[]> {
    await settling;
    const asked = pool;
    const askedAtMs = performance.now();
    try {
      const rows = await withDeadline(
        asked.unsafe(text, args as never[], prepared),
        deadlineMs,
        "postgres_silent",
      );
      answeredAtMs = performance.now();
      return rows as unknown as Row[];
    } catch (error) {
      if (isHang(error) && answeredAtMs < askedAtMs) replace(asked);
      if (isConnectionFailure(error)) await (settling ??= settle());
      throw error;
    }
  }

  function replace(hung: Pool) {
    if (pool !== hung) return;
    pool = connect(settings);
    void hung.end({ timeout: 0 });
  }

  // The driver loses a query for good that is asked between a connection's error and its close, which Bun tells a
  // moment later. So whoever tries again, and everybody else, waits that moment out.
  async function settle() {
    await Bun.sleep(settleMs);
    settling = undefined;
  }

  const close = () => pool.end({ timeout: closeTimeoutSeconds });
  return {
    query,
    async script(text) {
      await pool.unsafe(text).simple();
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

type Pool = ReturnType<typeof connect>;

function connect(settings: PostgresSettings) {
  return postgres(settings.url, {
    max: settings.connectionsMax,
    connect_timeout: settings.connectTimeoutSeconds,
    backoff: reconnectPauseSeconds,
    idle_timeout: 0,
    max_lifetime: null,
    onnotice: () => undefined,
    fetch_types: false,
    types,
    connection: {
      application_name: settings.applicationName,
      // All statements find their rows by index. A plan that is kept from when a table was small must do so too.
      enable_seqscan: "off",
      statement_timeout: settings.statementTimeoutMs,
    },
  });
}

// The driver's own pause grows to 20 s, and the whole pool shares it: a server that is back would be away for
// that much longer.
function reconnectPauseSeconds(failures: number): number {
  return Math.min(0.02 * 2 ** failures, 0.5) * (0.5 + Math.random() / 2);
}

function isHang(error: unknown): boolean {
  return error instanceof OperatingError && error.code === "postgres_silent";
}

/** Whether the outcome of the statement is unknown or it never ran: the connection failed, or the server is stopping. */
export function isConnectionFailure(error: unknown): boolean {
  const code = (error as { code?: unknown } | null)?.code;
  if (typeof code !== "string") return false;
  return (
    isHang(error) ||
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
