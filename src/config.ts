// The only reader of the environment: one schema to a frozen Config, checked whole at start.
import { type Static, type TSchema, Type } from "@sinclair/typebox";
import { Value } from "@sinclair/typebox/value";
import { OperatingError } from "./model/errors.ts";

/** The parts of a node that one process can run. */
export const roles = ["api", "outbox", "router", "backfill"] as const;
/** One of them. */
export type Role = (typeof roles)[number];

const milliseconds = (fallback: number, description: string) =>
  Type.Integer({ minimum: 1, maximum: 3_600_000, default: fallback, description });
const count = (fallback: number, maximum: number, description: string) =>
  Type.Integer({ minimum: 0, maximum, default: fallback, description });
const list = (pattern: string, fallback: string[], description: string) =>
  Type.Array(Type.String({ pattern }), { default: fallback, description });

/** Every variable with its default; the operations page and `chat4all serve --help` print from here. */
export const environmentSchema = Type.Object({
  PORT: Type.Integer({
    minimum: 0,
    maximum: 65_535,
    default: 3000,
    description: "Port of HTTP and WebSocket.",
  }),
  HOST: Type.String({ default: "127.0.0.1", minLength: 1, description: "Address to listen on." }),
  DATABASE_URL: Type.String({
    pattern: "^postgres(ql)?://",
    description: "Postgres, e.g. postgres://user:password@host:5432/database.",
  }),
  DATABASE_CONNECTIONS: Type.Integer({
    minimum: 4,
    maximum: 500,
    default: 12,
    description: "Connections of the main thread; each worker opens up to five more.",
  }),
  KAFKA_BROKERS: list("^[^\\s,]+:\\d+$", [], "Kafka bootstrap servers, host:port, separated by commas."),
  KAFKA_TOPIC_PREFIX: Type.String({
    pattern: "^[a-zA-Z0-9._-]{1,64}$",
    default: "chat4all",
    description: "First part of each topic's and group's name.",
  }),
  KAFKA_PARTITIONS: Type.Integer({
    minimum: 1,
    maximum: 256,
    default: 16,
    description: "Partitions of each topic, which are also the outbox's shards. Fixed at the first start.",
  }),
  REDIS_URL: Type.String({
    pattern: "^(rediss?|redis\\+sentinel)://",
    description: "Redis, e.g. redis://host:6379/0 or redis+sentinel://host:26379/name/0.",
  }),
  REDIS_PREFIX: Type.String({
    pattern: "^[a-zA-Z0-9._:-]{0,64}$",
    default: "chat4all:",
    description: "First part of each key's and channel's name.",
  }),
  JWT_SECRET: Type.Optional(
    Type.String({ minLength: 32, description: "Secret of HS256 access tokens, at least 32 characters." }),
  ),
  JWT_JWKS_URL: Type.Optional(
    Type.String({ pattern: "^https?://", description: "Keys of another issuer (RS256, ES256)." }),
  ),
  JWT_ISSUER: Type.String({
    minLength: 1,
    default: "chat4all",
    description: "The issuer that tokens must have.",
  }),
  JWT_AUDIENCE: Type.String({
    minLength: 1,
    default: "chat4all",
    description: "The audience that tokens must have.",
  }),
  ROLES: Type.Array(Type.Union(roles.map((role) => Type.Literal(role))), {
    minItems: 1,
    default: [...roles],
    description: "Parts to run: api, outbox, router, backfill.",
  }),
  CHANNELS: list("^[a-z0-9-]{1,64}$", [], "Channels that conversations may carry; each has a topic."),
  RATE_LIMIT_USER_PER_SECOND: count(20, 1_000_000, "Requests a second of one user; 0 turns it off."),
  RATE_LIMIT_CONVERSATION_PER_SECOND: count(
    100,
    1_000_000,
    "Messages a second to one conversation; 0 turns it off.",
  ),
  ACCESS_TOKEN_SECONDS: Type.Integer({
    minimum: 30,
    maximum: 86_400,
    default: 3600,
    description: "Life of an access token.",
  }),
  REFRESH_TOKEN_SECONDS: Type.Integer({
    minimum: 60,
    maximum: 31_536_000,
    default: 2_592_000,
    description: "Life of a refresh token.",
  }),
  DRAIN_MS: milliseconds(12_000, "Longest time that a drain may take after SIGTERM."),
  LIVE_POLL_MS: milliseconds(500, "How often the newest numbers are polled while Redis is away."),
  LOG_LEVEL: Type.Union(
    ["trace", "debug", "info", "warn", "error", "fatal"].map((level) => Type.Literal(level)),
    { default: "info", description: "Least level that is logged." },
  ),
  OTEL_EXPORTER_OTLP_ENDPOINT: Type.Optional(
    Type.String({ pattern: "^https?://", description: "Where traces go." }),
  ),
  METRICS_PORT: Type.Optional(
    Type.Integer({
      minimum: 0,
      maximum: 65_535,
      description: "Port of /metrics; default: the service port.",
    }),
  ),
});

type Environment = Static<typeof environmentSchema>;

/** The configuration of one process: plain data, so that it can be passed to a worker thread. */
export type Config = Readonly<Environment>;

/** The environment of this process, for the command line, which fills its gaps before it is read. */
export function environment(): Record<string, string | undefined> {
  return process.env;
}

/**
 * Reads and checks the whole environment. An empty variable counts as unset.
 * Throws OperatingError `bad_configuration` with one line that names every wrong or missing variable.
 */
export function readConfig(variables: Record<string, string | undefined> = environment()): Config {
  const config = readValues(Object.keys(environmentSchema.properties), variables) as Environment;
  const faults = combinationFaults(config);
  if (faults.length > 0) throw badConfiguration(faults);
  return Object.freeze(config);
}

/** The same for some variables only, for a command that needs no more. */
export function readVariables<Name extends keyof Environment>(
  names: readonly Name[],
  variables: Record<string, string | undefined>,
): Pick<Config, Name> {
  return readValues(names, variables) as Pick<Config, Name>;
}

function readValues(names: readonly string[], variables: Record<string, string | undefined>) {
  const properties: Record<string, TSchema> = environmentSchema.properties;
  const faults: string[] = [];
  const values: Record<string, unknown> = {};
  for (const [name, schema] of Object.entries(properties)) {
    if (!names.includes(name)) continue;
    const text = variables[name];
    if (text !== undefined && text !== "") {
      values[name] = decode(schema, text);
      if (!Value.Check(schema, values[name])) faults.push(`${name} is not valid (${schema.description})`);
    } else if (schema.default !== undefined) {
      values[name] = schema.default;
    } else if ((environmentSchema.required as string[] | undefined)?.includes(name)) {
      faults.push(`${name} is not set (${schema.description})`);
    }
  }
  if (faults.length > 0) throw badConfiguration(faults);
  return values;
}

function badConfiguration(faults: string[]): OperatingError {
  return new OperatingError("bad_configuration", { message: faults.join("; ") });
}

function decode(schema: TSchema, text: string): unknown {
  if (schema["type"] === "integer") return /^\d{1,15}$/.test(text) ? Number(text) : text;
  if (schema["type"] === "array")
    return text
      .split(",")
      .map((item) => item.trim())
      .filter((item) => item !== "");
  return text;
}

function combinationFaults(config: Environment): string[] {
  const faults: string[] = [];
  const needsKafka = config.ROLES.includes("outbox") || config.ROLES.includes("router");
  if (needsKafka && config.KAFKA_BROKERS.length === 0) {
    faults.push("KAFKA_BROKERS is not set (needed by the roles outbox and router)");
  }
  if (config.ROLES.includes("api") && config.JWT_SECRET === undefined && config.JWT_JWKS_URL === undefined) {
    faults.push("JWT_SECRET is not set (or JWT_JWKS_URL; needed by the role api)");
  }
  return faults;
}

/** Names of the topics, by what they are for. */
export interface TopicNames {
  outbox: string;
  events: string;
  deadLetters: string;
  channel(name: string): string;
}

/** The topics of a configuration. */
export function topicNames(config: Pick<Config, "KAFKA_TOPIC_PREFIX">): TopicNames {
  const prefix = config.KAFKA_TOPIC_PREFIX;
  return {
    outbox: `${prefix}.outbox`,
    events: `${prefix}.events`,
    deadLetters: `${prefix}.dead-letters`,
    channel: (name) => `${prefix}.channel.${name}`,
  };
}
