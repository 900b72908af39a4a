/**
 * Postgres, Kafka and Redis on one's own machine: those whose address is given are used, the others are started
 * as real servers on the loopback address, all at once, with their data in one directory.
 */
import { mkdirSync, rmSync } from "node:fs";
import { dirname } from "node:path";
import { startKafkaCluster } from "./kafka.ts";
import { startPostgres } from "./postgres.ts";
import { stopLeftovers } from "./process.ts";
import { startRedis } from "./redis.ts";

/** Addresses of the servers in use, and how to stop those that were started here. */
export interface LocalServices {
  databaseUrl: string;
  kafkaBrokers: string;
  redisUrl: string;
  stop(): Promise<void>;
}

/** What each server is started with. */
export interface ServerOptions {
  /** Where it keeps its data, in a folder of its own; an absolute path. */
  readonly dataDirectory: string;
  /** Takes a line such as `Kafka: starting`; the next one with the same name before the colon replaces it. */
  readonly report: (line: string) => void;
  readonly signal?: AbortSignal | undefined;
  /** Any free port instead of the server's usual one. */
  readonly anyPort?: boolean | undefined;
}

/** A server that answers. Started again with the same options it has the same data and address. */
export interface RunningServer {
  readonly url: string;
  readonly pid: number;
  /** In good order, or by this signal; resolves when its process is gone. */
  stop(signal?: NodeJS.Signals): Promise<void>;
}

/**
 * Starts what is not given, and resolves once all of it answers. If one of them fails or `signal` aborts, those
 * that run are stopped again before the error is thrown.
 * With `forTests`, ports are never the usual ones, and `databaseUrl` is that of a role which may create databases.
 */
export async function startServices(
  options: ServerOptions & {
    given?: {
      databaseUrl?: string | undefined;
      kafkaBrokers?: string | undefined;
      redisUrl?: string | undefined;
    };
    forTests?: boolean;
  },
): Promise<LocalServices> {
  mkdirSync(options.dataDirectory, { recursive: true, mode: 0o700 });
  await stopLeftovers(options.dataDirectory);
  const { given = {}, forTests = false } = options;
  const failed = new AbortController();
  const signal =
    options.signal === undefined ? failed.signal : AbortSignal.any([options.signal, failed.signal]);
  const common: ServerOptions = { ...options, signal, anyPort: options.anyPort ?? forTests };

  const starts = [
    given.databaseUrl === undefined
      ? startPostgres({ ...common, mayCreateDatabases: forTests })
      : use(given.databaseUrl),
    given.kafkaBrokers === undefined ? startKafka(common) : use(given.kafkaBrokers),
    given.redisUrl === undefined ? startRedis(common) : use(given.redisUrl),
  ] as const;
  for (const start of starts) start.catch((error: unknown) => failed.abort(error));
  const outcomes = await Promise.allSettled(starts);
  const stop = async () => {
    await Promise.all(
      outcomes.map((outcome) => (outcome.status === "fulfilled" ? outcome.value.stop() : undefined)),
    );
  };
  const [postgres, kafka, redis] = outcomes;
  if (postgres.status === "fulfilled" && kafka.status === "fulfilled" && redis.status === "fulfilled") {
    return {
      databaseUrl: postgres.value.url,
      kafkaBrokers: kafka.value.url,
      redisUrl: redis.value.url,
      stop,
    };
  }
  await stop();
  throw signal.reason;
}

/** Removes all data of servers that were started in `dataDirectory`, after stopping those that a crash left behind. */
export async function removeData(dataDirectory: string): Promise<void> {
  await stopLeftovers(dataDirectory);
  for (const portsFile of new Bun.Glob("*/ports.json").scanSync({ cwd: dataDirectory, absolute: true })) {
    rmSync(dirname(portsFile), { recursive: true });
  }
}

async function startKafka(options: ServerOptions): Promise<UsedServer> {
  const cluster = await startKafkaCluster({ ...options, brokers: 1 });
  return { url: cluster.bootstrap, stop: cluster.stop };
}

type UsedServer = Pick<RunningServer, "url" | "stop">;

async function use(url: string): Promise<UsedServer> {
  return { url, stop: async () => undefined };
}
