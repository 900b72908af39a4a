// OAuth calls as clients make them.
import type { Answer, TestServer } from "./server.ts";

/** A client and its secret. */
export interface Credentials {
  id: string;
  secret: string;
}

/** Sends parameters as a form; with Basic authentication where credentials are given. */
export function postForm(
  server: Pick<TestServer, "call">,
  path: string,
  parameters: Record<string, string> | string,
  basic?: Credentials,
): Promise<Answer> {
  return server.call("POST", path, undefined, {
    as: null,
    rawBody: new URLSearchParams(parameters).toString(),
    headers: {
      "content-type": "application/x-www-form-urlencoded",
      ...(basic && { authorization: basicHeader(basic) }),
    },
  });
}

/** Both halves are form-encoded before they are joined (RFC 6749, 2.3.1). */
export function basicHeader({ id, secret }: Credentials): string {
  return `Basic ${Buffer.from(`${encodeURIComponent(id)}:${encodeURIComponent(secret)}`).toString("base64")}`;
}

/** A sign-in of a user by a client of scope admin. */
export async function signIn(
  server: Pick<TestServer, "call">,
  admin: Credentials,
  user: string,
  body?: object,
): Promise<{ access: string; refresh: string; answer: Answer }> {
  const client = await postForm(server, "/oauth/token", { grant_type: "client_credentials" }, admin);
  const path = `/v1/users/${encodeURIComponent(user)}/tokens`;
  const answer = await server.call("POST", path, body, { token: client.body.access_token });
  return { access: answer.body.access_token, refresh: answer.body.refresh_token, answer };
}

/** The claims of a token, unverified. */
export function claimsOf(token: string): Record<string, unknown> {
  return JSON.parse(Buffer.from(token.split(".")[1] ?? "", "base64url").toString());
}
