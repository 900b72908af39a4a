/** Chat4All's HTTP interface, as far as `up` and its demo call it. */
import { OperatingError } from "../../src/model/errors.ts";

/** Calls in the name of one user or client. */
export interface ApiClient {
  readonly url: string;
  readonly token: string;
  /**
   * The answer's body.
   * @throws {OperatingError} `api_failed` for any answer but 2xx.
   */
  call<T>(method: "GET" | "POST", path: string, body?: object): Promise<T>;
  /** The same for one of the application's users; takes the scope `admin`. */
  as(userId: string): Promise<ApiClient>;
}

/** Signs in as a client (RFC 6749, section 4.4). */
export async function openApi(
  url: string,
  client: { client_id: string; client_secret: string },
  signal: AbortSignal,
): Promise<ApiClient> {
  const { client_id, client_secret } = client;
  const body = { grant_type: "client_credentials", client_id, client_secret };
  const { access_token } = await request<Token>(`${url}/oauth/token`, { method: "POST", body, signal });
  return clientWith(url, access_token, signal);
}

interface Token {
  readonly access_token: string;
}

function clientWith(url: string, token: string, signal: AbortSignal): ApiClient {
  const call = <T>(method: "GET" | "POST", path: string, body?: object) =>
    request<T>(url + path, { method, body, token, signal });
  return {
    url,
    token,
    call,
    async as(userId) {
      const { access_token } = await call<Token>("POST", `/v1/users/${encodeURIComponent(userId)}/tokens`);
      return clientWith(url, access_token, signal);
    },
  };
}

async function request<T>(
  url: string,
  options: { method: string; body?: object | undefined; token?: string; signal: AbortSignal },
): Promise<T> {
  const headers = new Headers();
  if (options.token !== undefined) headers.set("authorization", `Bearer ${options.token}`);
  if (options.body !== undefined) headers.set("content-type", "application/json");
  const response = await fetch(url, {
    method: options.method,
    headers,
    ...(options.body === undefined ? {} : { body: JSON.stringify(options.body) }),
    signal: options.signal,
  });
  if (response.ok) return (await response.json()) as T;
  const message = `${options.method} ${new URL(url).pathname} answered ${response.status}: ${await response.text()}`;
  throw new OperatingError("api_failed", { message });
}
