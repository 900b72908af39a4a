// The stage of a chaos run: Postgres, Redis, Kafka and instances of the server, each as processes of their own, with
// proxies between them. Guaranteed: whatever is done to it, `healAll` brings all of it back, and at its end (also of
// this process, at the latest with the next stage in the same folder) nothing of it is left running.
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { claimDirectory } from "../../deploy/local/claim.ts";
import { type KafkaCluster, startKafkaCluster } from "../../deploy/local/kafka.ts";
import { recordedProcess } from "../../deploy/local/pid.ts";
import { choosePorts } from "../../deploy/local/ports.ts";
import { startPostgres } from "../../deploy/local/postgres.ts";
import { sendSignal, stopLeftovers } from "../../deploy/local/process.ts";
import { startRedis } from "../../deploy/local/redis.ts";
import { type RunningServer, removeData, type ServerOptions } from "../../deploy/local/services.ts";
import { type Config, readConfig } from "../../src/config.ts";
import { prepareShards } from "../../src/outbox/shards.ts";
import { ensureTopics, type KafkaSettings } from "../../src/platform/kafka.ts";
import { migrate } from "../../src/platform/migrate.ts";
import { openPostgres, type Postgres } from "../../src/platform/postgres.ts";
import { topicsOf } from "../../src/topics.ts";
import { type FaultProxy, startFaultProxy } from "../support/fault-proxy.ts";
import type { Defect } from "./defect.ts";
import { type Disk, makeDisk, unmountBelow } from "./disk.ts";
import { diskFaults } from "./faults/disk.ts";
import { instanceFaults } from "./faults/instances.ts";
import { networkFaults } from "./faults/network.ts";
import { kafkaFaults, postgresFaults, redisFaults } from "./faults/servers.ts";
import type { FaultKind } from "./faults.ts";
import { type Instance, makeInstance, type UnexpectedExit } from "./node.ts";
import { defectVariable } from "./seam.ts";
import { type StagedServer, stagedServer } from "./servers.ts";

/** What a stage is made of. */
export interface StageOptions {
  instances: number;
  /** Three have topics of replication 3. */
  brokers: 1 | 3;
  /** An absolute path; what an earlier stage left in it is removed. */
  dataDirectory: string;
  /** Takes a line such as `Kafka: starting`. */
  report(line: string): void;
  signal?: AbortSignal;
  /** Of the instances, beyond or instead of the usual ones. */
  variables?: Record<string, string>;
  defect?: Defect;
}

/** A stage that stands: everything runs, and no fault is there. */
export interface Stage extends AsyncDisposable {
  readonly instances: readonly Instance[];
  /** As the instances have it, but with addresses that no proxy is in front of (brokers tell theirs, though). */
  readonly config: Config;
  /** To look into the database; goes on after Postgres was away, as the server's own pool does. */
  readonly postgres: Postgres;
  /** To read topics with, once all is healed. */
  readonly kafka: KafkaSettings;
  /** Every kind of harm that this machine permits. */
  readonly faults: readonly FaultKind[];
  /** Ends every fault and starts whatever is down; resolves when all of it answers. */
  healAll(): Promise<void>;
  /** Of instances that had started and ended though nobody asked them to. They were started again. */
  unexpectedExits(): readonly UnexpectedExit[];
}

/** What the faults are made of. */
export interface StageParts {
  instances: readonly Instance[];
  postgres: StagedServer;
  redis: StagedServer;
  brokers: readonly StagedServer[];
  proxies: Proxies;
  /** The first broker's, if it can be made full. */
  disk: Disk | undefined;
  /** The address of Redis itself. */
  redisUrl: string;
  /** To Postgres itself. */
  database: Postgres;
}

/** The proxies: in front of Postgres and Redis one for each instance, in front of each broker one for all. */
export interface Proxies {
  postgres: readonly FaultProxy[];
  redis: readonly FaultProxy[];
  kafka: readonly FaultProxy[];
}

const usualVariables = {
  JWT_SECRET: "a secret for chaos only, of 32 characters or more",
  KAFKA_PARTITIONS: "8",
  KAFKA_TOPIC_PREFIX: "chaos",
  CHANNELS: "support,audit",
  RATE_LIMIT_USER_PER_SECOND: "0",
  RATE_LIMIT_CONVERSATION_PER_SECOND: "0",
};

/** Starts everything; rejects, with all of it stopped again, when a part does not start or `signal` aborts. */
export async function openStage(options: StageOptions): Promise<Stage> {
  await using opened = new AsyncDisposableStack();
  mkdirSync(options.dataDirectory, { recursive: true });
  opened.defer(claimDirectory(options.dataDirectory));
  await stopLeftovers(options.dataDirectory);
  unmountBelow(options.dataDirectory);
  await removeData(options.dataDirectory);

  const disk = makeBrokerDisk(options);
  opened.defer(() => disk?.remove());
  opened.defer(killAtExit(options.dataDirectory));
  const proxies = await startProxies(options, opened);
  const servers = await startServers(options, proxies, opened);
  const config = readConfig({
    ...usualVariables,
    DATABASE_URL: servers.postgres.url,
    REDIS_URL: servers.redis.url,
    KAFKA_BROKERS: servers.kafka.bootstrap,
    ...options.variables,
  });
  const database = openPostgres({
    url: config.DATABASE_URL,
    connectionsMax: 4,
    applicationName: "chaos",
    connectTimeoutSeconds: 2,
    statementTimeoutMs: 60_000,
  });
  opened.defer(() => database.close());
  const kafka = { brokers: config.KAFKA_BROKERS, clientId: "chaos" };
  await prepare(config, database, kafka, options.defect);

  const exits: UnexpectedExit[] = [];
  const instances = await makeInstances(options, config, proxies, (exit) => void exits.push(exit));
  opened.defer(() => Promise.all(instances.map((instance) => instance.kill())).then(() => undefined));
  options.report("instances: starting");
  await Promise.all(instances.map((instance) => instance.start()));
  options.report(`instances: ready at ${instances.map(({ url }) => url).join(", ")}`);
  options.signal?.throwIfAborted();

  const parts: StageParts = {
    instances,
    ...servers.staged,
    proxies,
    disk,
    redisUrl: config.REDIS_URL,
    database,
  };
  const faults = [
    ...instanceFaults(parts),
    ...postgresFaults(parts),
    ...redisFaults(parts),
    ...kafkaFaults(parts),
    ...networkFaults(parts),
    ...diskFaults(parts),
  ];
  const running = opened.move();
  return {
    instances,
    config,
    postgres: database,
    kafka,
    faults,
    async healAll() {
      const { postgres, redis, brokers } = parts;
      for (const server of [postgres, redis, ...brokers]) server.resume();
      await Promise.all(faults.map((fault) => fault.end()));
      await Promise.all([postgres, redis, ...brokers].map((server) => server.start()));
      await Promise.all(instances.map((instance) => instance.start()));
    },
    unexpectedExits: () => exits,
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

/** For an end of this process that disposes of nothing: what runs still is killed. Answers how to leave that out. */
function killAtExit(dataDirectory: string): () => void {
  const killAll = () => {
    for (const file of new Bun.Glob("*/*.pid").scanSync({ cwd: dataDirectory, absolute: true })) {
      const running = recordedProcess(file);
      if (running !== undefined) sendSignal(running.pid, "SIGKILL");
    }
    unmountBelow(dataDirectory);
  };
  process.on("exit", killAll);
  return () => void process.off("exit", killAll);
}

function makeBrokerDisk({ dataDirectory, report }: StageOptions): Disk | undefined {
  const folder = join(dataDirectory, "kafka-1");
  mkdirSync(folder, { recursive: true });
  return makeDisk(folder, report);
}

async function startProxies(options: StageOptions, opened: AsyncDisposableStack): Promise<Proxies> {
  const start = async (count: number) => {
    const proxies = await Promise.all(Array.from({ length: count }, () => startFaultProxy()));
    for (const proxy of proxies) opened.defer(() => proxy.stop());
    return proxies;
  };
  return {
    postgres: await start(options.instances),
    redis: await start(options.instances),
    kafka: await start(options.brokers),
  };
}

/** Starts the servers and puts the proxies in front of them. */
async function startServers(options: StageOptions, proxies: Proxies, opened: AsyncDisposableStack) {
  const common: ServerOptions = {
    dataDirectory: options.dataDirectory,
    report: options.report,
    signal: options.signal,
    anyPort: true,
  };
  const startPostgresOnce = () => startPostgres({ ...common, mayCreateDatabases: false });
  const startRedisOnce = () => startRedis(common);
  const starts = await Promise.allSettled([
    startPostgresOnce(),
    startRedisOnce(),
    startKafkaCluster({
      ...common,
      brokers: options.brokers,
      advertise: (index, port) => {
        const proxy = proxies.kafka[index] as FaultProxy;
        proxy.target = port;
        return proxy.port;
      },
    }),
  ]);
  const [postgres, redis, kafka] = starts;
  const staged = {
    postgres: stagedServer("postgres", startPostgresOnce, valueOf(postgres)),
    redis: stagedServer("redis", startRedisOnce, valueOf(redis)),
    brokers: (valueOf(kafka)?.brokers ?? []).map(stagedBroker),
  };
  for (const server of [staged.postgres, staged.redis, ...staged.brokers]) opened.defer(() => server.stop());
  for (const start of starts) if (start.status === "rejected") throw start.reason;
  const servers = {
    postgres: valueOf(postgres) as RunningServer,
    redis: valueOf(redis) as RunningServer,
    kafka: valueOf(kafka) as KafkaCluster,
  };
  for (const proxy of proxies.postgres) proxy.target = Number(new URL(servers.postgres.url).port);
  for (const proxy of proxies.redis) proxy.target = Number(new URL(servers.redis.url).port);
  return { ...servers, staged };
}

function valueOf<Value>(outcome: PromiseSettledResult<Value>): Value | undefined {
  return outcome.status === "fulfilled" ? outcome.value : undefined;
}

function stagedBroker(broker: KafkaCluster["brokers"][number]): StagedServer {
  const handle = () => ({
    pid: broker.pid,
    stop: (signal?: NodeJS.Signals) => broker.kill(signal ?? "SIGTERM"),
  });
  return stagedServer(`kafka-${broker.id}`, () => broker.start().then(handle), handle());
}

async function prepare(
  config: Config,
  database: Postgres,
  kafka: KafkaSettings,
  defect: Defect | undefined,
): Promise<void> {
  await migrate(database);
  if (defect?.sql !== undefined) await database.script(defect.sql);
  await prepareShards(database, config.KAFKA_PARTITIONS);
  await ensureTopics(kafka, topicsOf(config));
}

/** The instances, which are down yet. */
async function makeInstances(
  options: StageOptions,
  config: Config,
  proxies: Proxies,
  onUnexpectedExit: (exit: UnexpectedExit) => void,
): Promise<Instance[]> {
  const numbers = Array.from({ length: options.instances }, (_, index) => index + 1);
  const ports = await choosePorts(
    join(options.dataDirectory, "instance-ports.json"),
    numbers.flatMap(() => [0, 0]),
  );
  return numbers.map((number, index) => {
    const [port = 0, controlPort = 0] = ports.slice(2 * index);
    const name = `instance-${number}`;
    return makeInstance({
      name,
      directory: join(options.dataDirectory, name),
      port,
      controlPort,
      variables: {
        ...usualVariables,
        DATABASE_URL: through(proxies.postgres[index], config.DATABASE_URL),
        REDIS_URL: through(proxies.redis[index], config.REDIS_URL),
        KAFKA_BROKERS: config.KAFKA_BROKERS.join(","),
        ...options.variables,
        ...(options.defect && { [defectVariable]: JSON.stringify(options.defect) }),
      },
      onUnexpectedExit,
    });
  });
}

/** The same address, by way of a proxy. */
function through(proxy: FaultProxy | undefined, address: string): string {
  const url = new URL(address);
  url.port = String(proxy?.port);
  return url.href;
}
