// The HTTP API as commands call it: with a deadline, and with failures that say in one line what to do.
import { OperatingError } from "../model/errors.ts";
import { UsageError } from "./command.ts";
import { type Connection, readConnection } from "./connection.ts";

/** A token as OAuth names its parts (RFC 6749, 5.1). */
export interface Token {
  access_token: string;
  token_type: string;
  expires_in: number;
  scope: string;
  refresh_token?: string;
}

/** What a user's token may be limited to; the server's defaults otherwise. */
export interface TokenLimits {
  scope?: string | undefined;
  expires_in?: number | undefined;
}

/** One server, as the configured client sees it. */
export interface Api {
  readonly url: string;
  /** A token of the client itself. */
  clientToken(scope?: string): Promise<Token>;
  /** A token of a user, minted by the client; takes the scope admin. */
  userToken(userId: string, limits?: TokenLimits): Promise<Token>;
  /** Calls in the name of the client, or of a user. */
  asClient(): Caller;
  asUser(userId: string): Caller;
}

/** Calls with one token, which is replaced before it expires. */
export interface Caller {
  accessToken(): Promise<string>;
  /** The answer's body. Throws CallFailure for any other answer than 2xx. */
  call<T>(method: "GET" | "POST", path: string, body?: object): Promise<T>;
}

/** A call that was refused, or had no answer (`status` 0). The message is the server's `detail`. */
export class CallFailure extends OperatingError {
  readonly status: number;
  readonly retryAfterSeconds: number | undefined;

  constructor(
    code: string,
    message: string,
    status: number,
    options: { cause?: unknown; retryAfter?: string | null } = {},
  ) {
    super(code, { message, cause: options.cause });
    this.status = status;
    this.retryAfterSeconds = options.retryAfter ? Number(options.retryAfter) : undefined;
  }

  /** Whether the same call may succeed a little later. */
  get isPassing(): boolean {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

/** Options of every command that calls a server. */
export const apiOptions = {
  url: { type: "string", value: "URL", help: "The server; wins over CHAT4ALL_URL." },
} as const;

const answerDeadlineMs = 15_000;

/** The configured server. Throws UsageError for a bad URL, OperatingError `not_configured` when something is missing. */
export function openApi(givenUrl: string | undefined): Api {
  return apiOf(readTarget(readConnection(), givenUrl));
}

/** A server, and the client to call it as. */
export interface ApiTarget {
  readonly url: string;
  readonly client_id: string;
  readonly client_secret: string;
}

/** The server at `url`, as a client sees it. */
export function apiOf({ url, client_id, client_secret }: ApiTarget): Api {
  async function clientToken(scope?: string): Promise<Token> {
    const body = { grant_type: "client_credentials", client_id, client_secret, ...(scope && { scope }) };
    return await request<Token>(url, "POST", "/oauth/token", { body });
  }
  async function userToken(userId: string, limits: TokenLimits = {}): Promise<Token> {
    const { access_token } = await clientToken("admin");
    const path = `/v1/users/${encodeURIComponent(userId)}/tokens`;
    return await request<Token>(url, "POST", path, { accessToken: access_token, body: limits });
  }
  return {
    url,
    clientToken,
    userToken,
    asClient: () => callerWith(url, clientToken),
    asUser: (userId) => callerWith(url, () => userToken(userId)),
  };
}

function callerWith(url: string, signIn: () => Promise<Token>): Caller {
  let accessToken = "";
  let replaceAtMs = 0;

  async function currentToken(): Promise<string> {
    if (Date.now() < replaceAtMs) return accessToken;
    const token = await signIn();
    accessToken = token.access_token;
    replaceAtMs = Date.now() + (token.expires_in * 1000) / 2;
    return accessToken;
  }
  return {
    accessToken: currentToken,
    async call(method, path, body) {
      return await request(url, method, path, { accessToken: await currentToken(), body });
    },
  };
}

function readTarget({ variables, filled, fileUrl }: Connection, givenUrl: string | undefined): ApiTarget {
  const url = (givenUrl ?? variables["CHAT4ALL_URL"])?.replace(/\/+$/, "");
  const client_id = variables["CHAT4ALL_CLIENT_ID"];
  const client_secret = variables["CHAT4ALL_CLIENT_SECRET"];
  if (!url || !client_id || !client_secret) {
    const message =
      "no server is configured: run this where `bun run up` has left .chat4all/connection.json, " +
      "or set CHAT4ALL_URL, CHAT4ALL_CLIENT_ID and CHAT4ALL_CLIENT_SECRET";
    throw new OperatingError("not_configured", { message });
  }
  if (!/^https?:/.test(url) || !URL.canParse(url))
    throw new UsageError(`"${url}" is not an http or https URL`);
  // The file's secret goes to the file's host only: `--url` must not send it to somebody else.
  const isFromFile = filled.includes("CHAT4ALL_CLIENT_SECRET");
  if (isFromFile && fileUrl !== undefined && new URL(fileUrl).hostname !== new URL(url).hostname) {
    const message = `the client in .chat4all/connection.json is for ${fileUrl}; set CHAT4ALL_CLIENT_ID and CHAT4ALL_CLIENT_SECRET for ${url}`;
    throw new OperatingError("not_configured", { message });
  }
  return { url, client_id, client_secret };
}

async function request<T>(
  url: string,
  method: string,
  path: string,
  { accessToken, body }: { accessToken?: string; body?: object | undefined },
): Promise<T> {
  const headers = new Headers({ "user-agent": "chat4all-cli" });
  if (accessToken !== undefined) headers.set("authorization", `Bearer ${accessToken}`);
  if (body !== undefined) headers.set("content-type", "application/json");
  let answer: Response;
  let text: string;
  try {
    const signal = AbortSignal.timeout(answerDeadlineMs);
    answer = await fetch(url + path, {
      method,
      headers,
      signal,
      ...(body && { body: JSON.stringify(body) }),
    });
    text = await answer.text();
  } catch (cause) {
    const message = `no answer from ${url}; is the server up (\`bun run up\`), and is that its address?`;
    throw new CallFailure("server_unreachable", message, 0, { cause });
  }
  if (!answer.ok) throw refusal(answer, text);
  return JSON.parse(text) as T;
}

function refusal(answer: Response, text: string): CallFailure {
  const { status, headers } = answer;
  const retryAfter = headers.get("retry-after");
  if (headers.get("content-type")?.split(";")[0] !== "application/problem+json") {
    return new CallFailure(
      "not_chat4all",
      `${answer.url} answered HTTP ${status}, not as Chat4All does`,
      status,
    );
  }
  const problem = JSON.parse(text) as {
    code: string;
    detail: string;
    errors?: { path: string; message: string }[];
  };
  const faults = (problem.errors ?? []).map(({ path, message }) => ` ${path} ${message};`).join("");
  return new CallFailure(
    problem.code,
    `${problem.detail}${faults} (HTTP ${status} ${problem.code})`,
    status,
    { retryAfter },
  );
}
