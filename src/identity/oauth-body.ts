// The body and client authentication of OAuth calls: form or JSON, Basic or in the body (RFC 6749, 2.3.1 and 3.2).
import { invalidInput, Problem } from "../model/errors.ts";
import { checkText, checkValue, parseJson, readBody } from "../platform/json.ts";
import type { Postgres } from "../platform/postgres.ts";
import { type Client, verifyClient } from "./clients.ts";

const bodyBytesMax = 16 * 1024;

/** What an OAuth request may come as. */
export const oauthContentTypes = ["application/x-www-form-urlencoded", "application/json"] as const;

/** The parameters of an OAuth request: each once, text only. Throws Problem 400, 413, 415. */
export async function readParameters(request: Request): Promise<Map<string, string>> {
  const type = request.headers.get("content-type")?.split(";")[0]?.trim().toLowerCase();
  const bytes = await readBody(request, bodyBytesMax);
  if (type === "application/x-www-form-urlencoded") return formParameters(bytes);
  if (type === "application/json") return jsonParameters(bytes);
  throw new Problem(415, "unsupported_media_type", "The body must be a form or JSON.");
}

function formParameters(bytes: Uint8Array): Map<string, string> {
  const parameters = new Map<string, string>();
  for (const [name, value] of new URLSearchParams(new TextDecoder().decode(bytes))) {
    if (parameters.has(name))
      throw invalidInput(`/${name.slice(0, 64)}`, "must be given once", "invalid_request");
    checkText(value, `/${name.slice(0, 64)}`);
    parameters.set(name, value);
  }
  return parameters;
}

function jsonParameters(bytes: Uint8Array): Map<string, string> {
  const body = parseJson(bytes);
  checkValue(body);
  if (typeof body !== "object" || body === null || Array.isArray(body))
    throw invalidInput("", "must be an object");
  const parameters = new Map<string, string>();
  for (const [name, value] of Object.entries(body)) {
    if (typeof value !== "string") throw invalidInput(`/${name.slice(0, 64)}`, "must be a string");
    parameters.set(name, value);
  }
  return parameters;
}

/** The client that asks. Throws Problem 400 when it authenticates in two ways, 401 `invalid_client`. */
export async function authenticateClient(
  postgres: Postgres,
  request: Request,
  parameters: Map<string, string>,
): Promise<Client> {
  const basic = basicCredentials(request.headers.get("authorization"));
  if (basic !== null && parameters.has("client_secret")) {
    throw new Problem(400, "invalid_request", "Use one way of client authentication.");
  }
  const id = basic?.id ?? parameters.get("client_id");
  const secret = basic?.secret ?? parameters.get("client_secret");
  if (id === undefined || secret === undefined || id.length > 128 || secret.length > 256)
    throw invalidClient();
  const client = await verifyClient(postgres, id, secret);
  if (client === null) throw invalidClient();
  return client;
}

function basicCredentials(header: string | null): { id: string; secret: string } | null {
  if (header === null) return null;
  const encoded = /^basic +([A-Za-z0-9+/_=-]+)$/i.exec(header)?.[1];
  if (encoded === undefined) throw invalidClient();
  const text = Buffer.from(encoded, "base64").toString();
  const colon = text.indexOf(":");
  if (colon === -1 || text.includes("\0")) throw invalidClient();
  try {
    // Both halves are form-encoded before they are joined (RFC 6749, 2.3.1).
    return { id: formDecode(text.slice(0, colon)), secret: formDecode(text.slice(colon + 1)) };
  } catch {
    throw invalidClient();
  }
}

function formDecode(text: string): string {
  return decodeURIComponent(text.replaceAll("+", " "));
}

function invalidClient(): Problem {
  return new Problem(401, "invalid_client", "The client is unknown, or its secret is wrong.");
}
