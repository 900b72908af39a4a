/** `.chat4all/connection.json`: how to reach what `up` started, for the command line and further instances. */
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** Everything that a client or a second instance needs. It holds secrets: the file is for its owner only. */
export interface Connection {
  readonly url: string;
  readonly client_id: string;
  readonly client_secret: string;
  readonly jwt_secret: string;
  readonly database_url: string;
  readonly kafka_brokers: string;
  readonly redis_url: string;
}

/** The connection that was written last, if there was one. */
export function readConnection(dataDirectory: string): Connection | undefined {
  const file = join(dataDirectory, "connection.json");
  return existsSync(file) ? (JSON.parse(readFileSync(file, "utf8")) as Connection) : undefined;
}

/** Replaces the file at once, so that nobody reads half of it. */
export function writeConnection(dataDirectory: string, connection: Connection): void {
  const file = join(dataDirectory, "connection.json");
  writeFileSync(`${file}.new`, `${JSON.stringify(connection, null, 2)}\n`, { mode: 0o600 });
  renameSync(`${file}.new`, file);
}
