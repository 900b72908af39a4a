// The one file through which Postgres is reached. Every query is a raw .sql text, prepared and pipelined;
// there are no client-side transactions: whatever must be one commit is one call.
import postgres from "postgres";
import { OperatingError } from "../model/errors.ts";
import { withDeadline } from "./pause.ts";
import { openPulse, type Pulse } from "./postgres-pulse.ts";
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
  /** While it says that the server is away nobody waits: a query is refused, those under way end. */
  pulse?: Pulse;
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
const closeTimeoutSeconds = 1;

// Without `simple: false`, which the driver's types do not know, a statement without arguments would be neither
// prepared nor pipelined.
const prepared: { prepare: boolean } = Object.assign({ prepare: true }, { simple: false });

/** Opens a pool lazily: the first query connects. A pool that stops answering is replaced. */
export function openPostgres(settings: PostgresSettings): Postgres {
  const deadlineMs = settings.statementTimeoutMs + 1_000 * settings.connectTimeoutSeconds + deadlineSlackMs;
  let pool = openPool(settings);
  let answeredAtMs = performance.now();
  settings.pulse?.onAway(() => replace(pool));

  async function query<Row extends object>(text: string, args: readonly Argument[] = []): Promise<Row[]> {
    if (settings.pulse?.isAway()) throw new OperatingError(refusal);
    const { sql, over } = pool;
    const asked = pool;
    const askedAtMs = performance.now();
    try {
      const answer = sql.unsafe(text, args as never[], prepared);
      const rows = await withDeadline(answer, deadlineMs, silence, over.signal);
      answeredAtMs = performance.now();
      return rows as unknown as Row[];
    } catch (error) {
      if (isSilence(error) && answeredAtMs < askedAtMs) replace(asked);
      throw error;
    }
  }

  /** Also ends what is still asked of it. */
  function replace(hung: Pool) {
    if (pool !== hung) return;
    pool = openPool(settings);
    hung.over.abort(new OperatingError(silence));
    void hung.sql.end({ timeout: 0 });
  }

  const close = () => pool.sql.end({ timeout: closeTimeoutSeconds });
  return {
    query,
    async script(text) {
      await pool.sql.unsafe(text).simple();
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

/** Asks whether the server at `url` answers, until it is closed. */
export function openPostgresPulse(url: string): Pulse {
  return openPulse(() => {
    const sql = connect({ ...pulseSettings, url });
    return {
      // Whoever has no connection left for this one still has those of others.
      ask: () => sql.unsafe("select 1", [], prepared).catch(unless(tooManyConnections)),
      end: () => void sql.end({ timeout: 0 }),
    };
  });
}

const pulseSettings = {
  connectionsMax: 1,
  applicationName: "chat4all pulse",
  connectTimeoutSeconds: 2,
  statementTimeoutMs: 10_000,
};
const tooManyConnections = "53300";

function unless(code: string) {
  return (error: unknown) => {
    if ((error as { code?: unknown }).code !== code) throw error;
  };
}

type Pool = ReturnType<typeof openPool>;

function openPool(settings: PostgresSettings) {
  return { sql: connect(settings), over: new AbortController() };
}

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

/** A statement that was never asked. */
const refusal = "postgres_away";
/** One that may have had its effect. */
const silence = "postgres_silent";

function isSilence(error: unknown): boolean {
  return error instanceof OperatingError && error.code === silence;
}

/** Whether the statement was not even asked, since the server is away: to ask again at once is of no use. */
export function isRefusal(error: unknown): boolean {
  return error instanceof OperatingError && error.code === refusal;
}

/** Whether the outcome of the statement is unknown or it never ran: the connection failed, or the server is stopping. */
export function isConnectionFailure(error: unknown): boolean {
  const code = (error as { code?: unknown } | null)?.code;
  if (typeof code !== "string") return false;
  return (
    isSilence(error) ||
    isRefusal(error) ||
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
