/**
 * A Kafka cluster of one's own in KRaft mode: brokers that are controllers too, each a Java process with its files
 * in `{dataDirectory}/kafka-{id}`.
 *
 * Brokers talk to each other on ports of their own, so that a proxy in front of a client's port (`advertise`)
 * harms clients only.
 */
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { OperatingError } from "../../src/model/errors.ts";
import { installedKafka } from "./kafka-install.ts";
import { choosePorts } from "./ports.ts";
import { runTool, type ServerProcess, startServerProcess, untilReady } from "./process.ts";
import type { ServerOptions } from "./services.ts";

/** One broker. After `kill` (SIGKILL unless told otherwise) `start` brings it back with the same data and ports. */
export interface KafkaBroker {
  readonly id: number;
  /** Where it listens itself, whatever it advertises. */
  readonly port: number;
  readonly pid: number;
  kill(signal?: NodeJS.Signals): Promise<void>;
  start(): Promise<void>;
}

/** Brokers that answer. `bootstrap` lists the addresses that they advertise, with commas between. */
export interface KafkaCluster {
  readonly brokers: KafkaBroker[];
  readonly bootstrap: string;
  stop(): Promise<void>;
}

/**
 * Installs Kafka if it is missing, and starts the brokers. If one of them fails or `signal` aborts, all are stopped
 * again.
 * `advertise` gives the port that clients are told for a broker, which may be that of a proxy.
 */
export async function startKafkaCluster(
  options: ServerOptions & { brokers: number; advertise?: (brokerIndex: number, port: number) => number },
): Promise<KafkaCluster> {
  const installation = await installedKafka(options);
  const nodes: Node[] = [];
  for (let index = 0; index < options.brokers; index++) {
    const id = index + 1;
    const directory = join(options.dataDirectory, `kafka-${id}`);
    mkdirSync(directory, { recursive: true });
    const usual = options.anyPort || options.brokers > 1 ? 0 : 9092;
    const [port = 0, internal = 0, controller = 0] = await choosePorts(join(directory, "ports.json"), [
      usual,
      0,
      0,
    ]);
    const advertised = options.advertise?.(index, port) ?? port;
    nodes.push({ id, directory, port, internal, controller, advertised });
  }
  const clusterId = rememberedClusterId(join(options.dataDirectory, "kafka-1/cluster-id"));
  const brokers = nodes.map((node) => brokerOf(node, nodes, { ...options, ...installation, clusterId }));
  const stop = async () => {
    await Promise.all(brokers.map((broker) => broker.kill("SIGTERM")));
  };
  const starts = await Promise.allSettled(brokers.map((broker) => broker.start()));
  for (const start of starts) {
    if (start.status === "fulfilled") continue;
    await stop();
    throw start.reason;
  }
  const bootstrap = nodes.map((node) => `127.0.0.1:${node.advertised}`).join(",");
  options.report(`Kafka: ready on ${nodes.map((node) => `port ${node.port}`).join(", ")}`);
  return { brokers, bootstrap, stop };
}

interface Node {
  readonly id: number;
  readonly directory: string;
  readonly port: number;
  readonly internal: number;
  readonly controller: number;
  readonly advertised: number;
}

interface BrokerOptions extends ServerOptions {
  readonly java: string;
  readonly classPath: string;
  readonly clusterId: string;
}

function brokerOf(node: Node, nodes: readonly Node[], options: BrokerOptions): KafkaBroker {
  const properties = join(node.directory, "server.properties");
  let server: ServerProcess | undefined;
  return {
    id: node.id,
    port: node.port,
    get pid() {
      return server?.pid ?? 0;
    },
    async start() {
      writeFileSync(properties, brokerProperties(node, nodes));
      await format(node, properties, options);
      options.report("Kafka: starting");
      const started = await startServerProcess({
        name: "kafka",
        command: [options.java, ...javaOptions(node, options.classPath), "kafka.Kafka", properties],
        directory: node.directory,
        stopSignal: "SIGTERM",
      });
      server = started;
      await untilReady(started, {
        name: "Kafka",
        deadlineMs: 120_000,
        signal: options.signal,
        probe: async () => started.lastOutput(50).includes("Kafka Server started"),
      });
    },
    async kill(signal = "SIGKILL") {
      await server?.stop(20_000, signal);
    },
  };
}

function javaOptions(node: Node, classPath: string): string[] {
  const memory = ["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:+ExitOnOutOfMemoryError"];
  const logging = [
    `-Dlog4j2.configurationFile=${join(import.meta.dir, "kafka/log4j2.xml")}`,
    `-Dchat4all.kafka.log=${join(node.directory, "warnings.log")}`,
  ];
  return [...memory, "-Djava.net.preferIPv4Stack=true", ...logging, "-cp", classPath];
}

/** See https://kafka.apache.org/documentation/#brokerconfigs; what is not here is as it comes. */
function brokerProperties(node: Node, nodes: readonly Node[]): string {
  const replication = Math.min(3, nodes.length);
  const inSyncReplicas = Math.min(2, nodes.length);
  const settings = {
    "process.roles": "broker,controller",
    "node.id": node.id,
    "controller.quorum.voters": nodes.map(({ id, controller }) => `${id}@127.0.0.1:${controller}`).join(","),
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "INTERNAL",
    listeners: `CLIENT://127.0.0.1:${node.port},INTERNAL://127.0.0.1:${node.internal},CONTROLLER://127.0.0.1:${node.controller}`,
    "advertised.listeners": `CLIENT://127.0.0.1:${node.advertised},INTERNAL://127.0.0.1:${node.internal}`,
    "listener.security.protocol.map": "CLIENT:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "log.dirs": join(node.directory, "data"),
    "auto.create.topics.enable": false,
    "group.initial.rebalance.delay.ms": 0,
    "min.insync.replicas": inSyncReplicas,
    // A broker that was killed is let in again only when its earlier life has timed out.
    "broker.session.timeout.ms": 5_000,
    "broker.heartbeat.interval.ms": 1_000,
    "offsets.topic.num.partitions": 4,
    "offsets.topic.replication.factor": replication,
    "transaction.state.log.num.partitions": 4,
    "transaction.state.log.replication.factor": replication,
    "transaction.state.log.min.isr": inSyncReplicas,
    // A quarter of the heap otherwise.
    "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
  };
  return `${Object.entries(settings)
    .map(([name, value]) => `${name}=${value}`)
    .join("\n")}\n`;
}

/** A broker's data folder belongs to its cluster from before its first start. A marker tells that this was completed. */
async function format(node: Node, properties: string, options: BrokerOptions): Promise<void> {
  const marker = join(node.directory, "formatted");
  if (existsSync(marker)) return;
  options.report("Kafka: creating its data folder");
  rmSync(join(node.directory, "data"), { recursive: true, force: true });
  const tool = [...javaOptions(node, options.classPath), "kafka.tools.StorageTool", "format"];
  const { code, output } = await runTool(
    [options.java, ...tool, `--cluster-id=${options.clusterId}`, "-c", properties],
    {
      signal: options.signal,
    },
  );
  if (code !== 0)
    throw new OperatingError("start_failed", {
      message: `Kafka could not create its data folder:\n${output}`,
    });
  writeFileSync(marker, "");
}

/** Kafka's cluster ids are 16 random bytes in base64url, which may begin with a dash. */
function rememberedClusterId(file: string): string {
  if (!existsSync(file)) writeFileSync(file, randomBytes(16).toString("base64url"));
  return readFileSync(file, "utf8");
}
