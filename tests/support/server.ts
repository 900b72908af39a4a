// A node of its own for a test file: a database, topics and keys that nobody else uses, on a free port.
import { type Config, readConfig } from "../../src/config.ts";
import { createClient } from "../../src/identity/clients.ts";
import { openTokens, type TokenClaims } from "../../src/identity/tokens.ts";
import { prepareShards } from "../../src/outbox/shards.ts";
import { ensureTopics } from "../../src/platform/kafka.ts";
import type { Postgres } from "../../src/platform/postgres.ts";
import { type Server, serve } from "../../src/serve.ts";
import { topicsOf } from "../../src/topics.ts";
import { connect, makeDatabase } from "./database.ts";

/** What a call answered: JSON bodies are parsed. */
export interface Answer {
  status: number;
  headers: Headers;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into answers of every shape.
  body: any;
}

/** How a call differs from alice's with JSON. */
export interface CallOptions {
  /** Who calls; default alice. null: no token. */
  as?: string | null;
  /** Instead of a token of `as`. */
  token?: string;
  headers?: Record<string, string>;
  /** Sent as it is, instead of a JSON body. */
  rawBody?: string | Uint8Array;
}

/** A running node and what tests ask of it. */
export interface TestServer extends AsyncDisposable {
  url: string;
  config: Config;
  /** The node's database, to look into. */
  postgres: Postgres;
  /** A user's token; scope messages:read messages:write unless told. */
  token(user: string, claims?: Partial<TokenClaims>): Promise<string>;
  call(method: string, path: string, body?: unknown, options?: CallOptions): Promise<Answer>;
  /** A group of alice (owner) and these. */
  makeGroup(members: string[], options?: { channels?: string[] }): Promise<string>;
  /** Posts a text as alice, or as told. */
  post(conversationId: string, text: string, options?: CallOptions & { messageId?: string }): Promise<Answer>;
  makeClient(scopes: Parameters<typeof createClient>[1]["scopes"]): Promise<{ id: string; secret: string }>;
  /** Another node on the same servers. */
  startSibling(changes?: Record<string, string>): Promise<{ url: string; server: Server }>;
}

const defaults = {
  PORT: "0",
  JWT_SECRET: "a secret for tests only, of 32 characters or more",
  KAFKA_PARTITIONS: "4",
  CHANNELS: "support,audit",
  RATE_LIMIT_USER_PER_SECOND: "0",
  RATE_LIMIT_CONVERSATION_PER_SECOND: "0",
  LOG_LEVEL: "fatal",
};

/** Starts a node; `changes` are environment variables. Waits until it listens. */
export async function startServer(changes: Record<string, string> = {}): Promise<TestServer> {
  const database = await makeDatabase();
  const name = `test-${crypto.randomUUID().slice(0, 8)}`;
  const variables = {
    ...defaults,
    DATABASE_URL: database.url,
    KAFKA_BROKERS: given("TEST_KAFKA_BROKERS"),
    REDIS_URL: given("TEST_REDIS_URL"),
    KAFKA_TOPIC_PREFIX: name,
    REDIS_PREFIX: `${name}:`,
    ...changes,
  };
  const config = readConfig(variables);
  const postgres = connect(database.url, 2);
  await prepareShards(postgres, config.KAFKA_PARTITIONS);
  await ensureTopics({ brokers: config.KAFKA_BROKERS, clientId: "test" }, topicsOf(config));
  const server = await serve(config);
  const siblings: Server[] = [];
  const calls = callsOf(server.url, config);

  return {
    url: server.url,
    config,
    postgres,
    ...calls,
    makeClient: (scopes) => createClient(postgres, { name: "test", scopes }),
    async startSibling(siblingChanges = {}) {
      const sibling = await serve(readConfig({ ...variables, ...siblingChanges }));
      siblings.push(sibling);
      return { url: sibling.url, server: sibling };
    },
    async [Symbol.asyncDispose]() {
      await Promise.all([server, ...siblings].map((running) => running.drain()));
      await postgres.close();
      await database.drop();
    },
  };
}

/** Calls of users to one node. */
export function callsOf(url: string, config: Config) {
  const tokens = openTokens({
    secret: config.JWT_SECRET,
    jwksUrl: undefined,
    issuer: config.JWT_ISSUER,
    audience: config.JWT_AUDIENCE,
  });
  const token = (user: string, claims: Partial<TokenClaims> = {}) =>
    tokens.sign({
      subject: user,
      clientId: "test",
      scope: "messages:read messages:write",
      expiresInSeconds: 600,
      ...claims,
    });

  const call = async (
    method: string,
    path: string,
    body?: unknown,
    options: CallOptions = {},
  ): Promise<Answer> => {
    const user = options.as === undefined ? "alice" : options.as;
    const bearer = options.token ?? (user === null ? null : await token(user));
    const response = await fetch(url + path, {
      method,
      headers: {
        ...(bearer === null ? {} : { authorization: `Bearer ${bearer}` }),
        ...(body === undefined && options.rawBody === undefined
          ? {}
          : { "content-type": "application/json" }),
        ...options.headers,
      },
      body: options.rawBody ?? (body === undefined ? null : JSON.stringify(body)),
      // A reused connection that breaks makes fetch send a GET or DELETE twice.
      keepalive: false,
    });
    const text = await response.text();
    const isJson = /json/.test(response.headers.get("content-type") ?? "");
    return { status: response.status, headers: response.headers, body: isJson ? JSON.parse(text) : text };
  };

  return {
    token,
    call,
    async makeGroup(members: string[], options: { channels?: string[] } = {}): Promise<string> {
      const made = await call("POST", "/v1/conversations", { kind: "group", members, ...options });
      if (made.status !== 201) throw new Error(`no group: ${JSON.stringify(made.body)}`);
      return made.body.id;
    },
    post(conversationId: string, text: string, options: CallOptions & { messageId?: string } = {}) {
      const { messageId = crypto.randomUUID(), ...rest } = options;
      const message = {
        message_id: messageId,
        conversation_id: conversationId,
        payload: { type: "text", text },
      };
      return call("POST", "/v1/messages", message, rest);
    },
  };
}

function given(name: string): string {
  const value = process.env[name];
  if (value === undefined) throw new Error(`${name} is not set; run the tests by \`bun run test\``);
  return value;
}
