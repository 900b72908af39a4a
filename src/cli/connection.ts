// What commands use when nothing else is configured: `.chat4all/connection.json`, which `up` leaves behind,
// from the working directory or the nearest parent that has one. Environment variables win over it.
import { existsSync, readFileSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { Type } from "@sinclair/typebox";
import { Value } from "@sinclair/typebox/value";
import { environment } from "../config.ts";
import { OperatingError } from "../model/errors.ts";
import { say } from "./output.ts";

/** The environment, with the gaps filled from the file. */
export interface Connection {
  variables: Record<string, string | undefined>;
  /** The file that was read, and the variables that came from it. */
  file: string | undefined;
  filled: string[];
  /** The server that the file belongs to: its credentials are for that host only. */
  fileUrl: string | undefined;
}

const variableOfField = {
  url: "CHAT4ALL_URL",
  client_id: "CHAT4ALL_CLIENT_ID",
  client_secret: "CHAT4ALL_CLIENT_SECRET",
  jwt_secret: "JWT_SECRET",
  database_url: "DATABASE_URL",
  kafka_brokers: "KAFKA_BROKERS",
  redis_url: "REDIS_URL",
} as const;

const fieldsSchema = Type.Record(Type.String(), Type.String());

/** Reads both. Throws OperatingError `bad_connection_file` for a file that is not as `up` writes it. */
export function readConnection(): Connection {
  const variables = { ...environment() };
  const file = findFile(process.cwd());
  if (file === undefined) return { variables, file, filled: [], fileUrl: undefined };

  const fields = readFields(file);
  const filled: string[] = [];
  for (const [field, variable] of Object.entries(variableOfField)) {
    if (variables[variable] || fields[field] === undefined) continue;
    variables[variable] = fields[field];
    filled.push(variable);
  }
  return { variables, file, filled, fileUrl: fields["url"] };
}

/** The same for programs that run a server's parts; says what it took from the file. */
export function readServerVariables(): Record<string, string | undefined> {
  const { variables, file, filled } = readConnection();
  const taken = filled.filter((name) => !name.startsWith("CHAT4ALL_"));
  if (taken.length > 0) say(`${taken.join(", ")} from ${file}`);
  return variables;
}

function findFile(directory: string): string | undefined {
  const file = join(directory, ".chat4all/connection.json");
  if (existsSync(file)) return file;
  const parent = dirname(directory);
  return parent === directory ? undefined : findFile(parent);
}

function readFields(file: string): Record<string, string> {
  if ((statSync(file).mode & 0o077) !== 0) {
    say(`warning: ${file} holds secrets and others can read it; chmod 600 it`);
  }
  try {
    return Value.Decode(fieldsSchema, JSON.parse(readFileSync(file, "utf8")));
  } catch (cause) {
    const message = `${file} is not a JSON object of strings; remove it, or let \`bun run up\` write it anew`;
    throw new OperatingError("bad_connection_file", { message, cause });
  }
}
