// Servers of a test's own, to be harmed, and nodes on them.
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startPostgres } from "../../deploy/local/postgres.ts";
import { sendSignal } from "../../deploy/local/process.ts";
import type { RunningServer } from "../../deploy/local/services.ts";
import { type Config, readConfig } from "../../src/config.ts";
import { prepareShards } from "../../src/outbox/shards.ts";
import { ensureTopics } from "../../src/platform/kafka.ts";
import { migrate } from "../../src/platform/migrate.ts";
import { topicsOf } from "../../src/topics.ts";
import { connect } from "../support/database.ts";

/** A folder that vanishes with its owner. */
export class Folder implements Disposable {
  readonly path = mkdtempSync(join(tmpdir(), "chat4all-faults-"));

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}

/** A Postgres of a test's own, with this build's schema; it may be killed, paused and started again. */
export class OwnPostgres implements AsyncDisposable {
  readonly #folder = new Folder();
  #server: RunningServer | undefined;

  get url(): string {
    return String(this.#server?.url);
  }

  async start(): Promise<void> {
    const options = { dataDirectory: this.#folder.path, report: () => undefined, anyPort: true };
    this.#server = await startPostgres({ ...options, mayCreateDatabases: false });
    await using postgres = connect(this.url);
    await migrate(postgres);
  }

  /** Ends all of its processes at once. */
  async kill(): Promise<void> {
    this.#signalAll("SIGKILL");
    await this.#server?.stop("SIGKILL");
  }

  /** Connections stay open, nothing is answered. */
  pause(): void {
    this.#signalAll("SIGSTOP");
  }

  resume(): void {
    this.#signalAll("SIGCONT");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.resume();
    await this.#server?.stop();
    this.#folder[Symbol.dispose]();
  }

  // Its backends leave its process group.
  #signalAll(signal: NodeJS.Signals): void {
    const pid = this.#server?.pid ?? 0;
    for (const each of [pid, ...childrenOf(pid)]) sendSignal(each, signal);
  }
}

function childrenOf(pid: number): number[] {
  try {
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8");
    return children.split(" ").filter(Boolean).map(Number);
  } catch {
    return [];
  }
}

/** The configuration of a node on the shared Kafka and Redis unless `changes` say otherwise, with topics and shards made. */
export async function prepareNode(
  databaseUrl: string,
  changes: Record<string, string> = {},
): Promise<Config> {
  const name = `test-${crypto.randomUUID().slice(0, 8)}`;
  const config = readConfig({
    PORT: "0",
    JWT_SECRET: "a secret for tests only, of 32 characters or more",
    KAFKA_PARTITIONS: "4",
    RATE_LIMIT_USER_PER_SECOND: "0",
    RATE_LIMIT_CONVERSATION_PER_SECOND: "0",
    LOG_LEVEL: "fatal",
    DATABASE_URL: databaseUrl,
    KAFKA_BROKERS: process.env["TEST_KAFKA_BROKERS"],
    REDIS_URL: process.env["TEST_REDIS_URL"],
    KAFKA_TOPIC_PREFIX: name,
    REDIS_PREFIX: `${name}:`,
    ...changes,
  });
  await using postgres = connect(databaseUrl);
  await prepareShards(postgres, config.KAFKA_PARTITIONS);
  await ensureTopics({ brokers: config.KAFKA_BROKERS, clientId: "test" }, topicsOf(config));
  return config;
}
