// Three real brokers behind proxies, and what a test does to them: moves leaders, holds answers back, reads the log.
// Faults on the proxies harm clients only; the brokers talk to each other on ports of their own.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Admin, Kafka, logLevel } from "kafkajs";
import { type KafkaBroker, startKafkaCluster } from "../../deploy/local/kafka.ts";
import { type KafkaSettings, readTopic } from "../../src/platform/kafka.ts";
import { type Fault, type FaultProxy, once, startFaultProxy, type Verdict } from "./fault-proxy.ts";
import { kafkaProtocol } from "./kafka-protocol.ts";
import { leadersKnownAt } from "./kafka-request.ts";
import { until } from "./until.ts";

/** A running cluster. `admin` goes through the proxies, as every client does. */
export interface ProxiedCluster {
  readonly brokers: readonly KafkaBroker[];
  readonly proxies: readonly FaultProxy[];
  /** Addresses in the order of the brokers' ids, which begin at 1. */
  readonly settings: KafkaSettings;
  readonly admin: Admin;
  proxyOf(brokerId: number): FaultProxy;
  /** The same fault on every broker. */
  setFault(fault: Fault): void;
  /** Holds back the next Produce answer of a broker, whose fault it becomes, until `release`. */
  holdProduceAnswer(brokerId: number): { struck: Promise<void>; release: (verdict: Verdict) => void };
  /** Partition 0 is led by broker 1, partition 1 by broker 2, each with two replicas. */
  newTopicOfTwoLeaders(): Promise<string>;
  leaderOf(topic: string, partition: number): Promise<number | undefined>;
  /** Moves a partition to other brokers, the first of which leads it then, as every broker knows. */
  moveLeader(topic: string, partition: number, replicas: number[]): Promise<void>;
  /** What is in the log, partition after partition. */
  valuesOf(topic: string): Promise<string[]>;
  stop(): Promise<void>;
}

/** Starts it in a directory of its own, which `stop` removes. */
export async function startProxiedCluster(options: {
  clientId: string;
  report?: (line: string) => void;
  signal?: AbortSignal;
}): Promise<ProxiedCluster> {
  const dataDirectory = mkdtempSync(join(tmpdir(), "chat4all-kafka-"));
  const proxies = await Promise.all([1, 2, 3].map(() => startFaultProxy({ protocol: kafkaProtocol })));
  const proxyOf = (brokerId: number) => proxies[brokerId - 1] as FaultProxy;
  const stopProxies = async () => {
    await Promise.all(proxies.map((proxy) => proxy.stop()));
    rmSync(dataDirectory, { recursive: true, force: true });
  };
  const starting = startKafkaCluster({
    dataDirectory,
    report: options.report ?? (() => {}),
    signal: options.signal,
    anyPort: true,
    brokers: 3,
    advertise: (index, port) => {
      const proxy = proxyOf(index + 1);
      proxy.target = port;
      return proxy.port;
    },
  });
  const cluster = await starting.catch(async (error: unknown) => {
    await stopProxies();
    throw error;
  });
  const settings = { brokers: cluster.bootstrap.split(","), clientId: options.clientId };
  const admin = new Kafka({ ...settings, logLevel: logLevel.NOTHING }).admin();
  await admin.connect();

  async function newTopicOfTwoLeaders() {
    const topic = `test-${crypto.randomUUID()}`;
    const replicaAssignment = [
      { partition: 0, replicas: [1, 2] },
      { partition: 1, replicas: [2, 3] },
    ];
    await admin.createTopics({ topics: [{ topic, replicaAssignment }], waitForLeaders: true });
    return topic;
  }

  async function leaderOf(topic: string, partition: number) {
    const metadata = await admin.fetchTopicMetadata({ topics: [topic] });
    return metadata.topics[0]?.partitions.find(({ partitionId }) => partitionId === partition)?.leader;
  }

  return {
    brokers: cluster.brokers,
    proxies,
    settings,
    admin,
    proxyOf,
    setFault(fault) {
      for (const proxy of proxies) proxy.fault = fault;
    },
    holdProduceAnswer(brokerId) {
      const { promise, resolve: release } = Promise.withResolvers<Verdict>();
      const { fault, struck } = once("answer", "produce", promise);
      proxyOf(brokerId).fault = fault;
      return { struck, release };
    },
    newTopicOfTwoLeaders,
    leaderOf,
    async moveLeader(topic, partition, replicas) {
      const partitionAssignment = [{ partition, replicas }];
      await admin.alterPartitionReassignments({ topics: [{ topic, partitionAssignment }] });
      const isKnown = async ({ port }: KafkaBroker) =>
        (await leadersKnownAt(port, topic)).get(partition) === replicas[0];
      for (const broker of cluster.brokers) await until(() => isKnown(broker), "the leader has moved");
    },
    valuesOf: async (topic) => (await readTopic(settings, topic)).map(({ value }) => String(value)),
    async stop() {
      await admin.disconnect();
      await cluster.stop();
      await stopProxies();
    },
  };
}
