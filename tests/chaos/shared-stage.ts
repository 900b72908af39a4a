// A stage without faults on the servers that tests share: a database, topics and keys of its own, and instances as
// processes. It takes seconds less than servers of its own, and is enough to see what a defect does.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { choosePorts } from "../../deploy/local/ports.ts";
import { readConfig } from "../../src/config.ts";
import { prepareShards } from "../../src/outbox/shards.ts";
import { ensureTopics } from "../../src/platform/kafka.ts";
import { topicsOf } from "../../src/topics.ts";
import { connect, makeDatabase } from "../support/database.ts";
import type { Defect } from "./defect.ts";
import { makeInstance, type UnexpectedExit } from "./node.ts";
import { defectVariable } from "./seam.ts";
import type { Stage } from "./stage.ts";

/** Starts it; `instances` processes with the defect, if one is given. */
export async function openSharedStage(options: { instances: number; defect?: Defect }): Promise<Stage> {
  await using opened = new AsyncDisposableStack();
  const directory = await mkdtemp(join(tmpdir(), "chat4all-chaos-"));
  opened.defer(() => rm(directory, { recursive: true, force: true }));
  const database = await makeDatabase();
  opened.defer(() => database.drop());
  const name = `chaos-${crypto.randomUUID().slice(0, 8)}`;
  const variables = {
    JWT_SECRET: "a secret for tests only, of 32 characters or more",
    DATABASE_URL: database.url,
    DATABASE_CONNECTIONS: "4",
    KAFKA_BROKERS: process.env["TEST_KAFKA_BROKERS"] ?? "",
    REDIS_URL: process.env["TEST_REDIS_URL"] ?? "",
    KAFKA_TOPIC_PREFIX: name,
    KAFKA_PARTITIONS: "2",
    REDIS_PREFIX: `${name}:`,
    CHANNELS: "support,audit",
    RATE_LIMIT_USER_PER_SECOND: "0",
    RATE_LIMIT_CONVERSATION_PER_SECOND: "0",
  };
  const config = readConfig(variables);
  const postgres = connect(database.url, 2);
  opened.defer(() => postgres.close());
  if (options.defect?.sql !== undefined) await postgres.script(options.defect.sql);
  await prepareShards(postgres, config.KAFKA_PARTITIONS);
  const kafka = { brokers: config.KAFKA_BROKERS, clientId: "chaos" };
  await ensureTopics(kafka, topicsOf(config));

  const exits: UnexpectedExit[] = [];
  const numbers = Array.from({ length: options.instances }, (_, index) => index + 1);
  const ports = await choosePorts(
    join(directory, "ports.json"),
    numbers.flatMap(() => [0, 0]),
  );
  const instances = numbers.map((number, index) =>
    makeInstance({
      name: `instance-${number}`,
      directory: join(directory, `instance-${number}`),
      port: ports[2 * index] ?? 0,
      controlPort: ports[2 * index + 1] ?? 0,
      variables: {
        ...variables,
        ...(options.defect && { [defectVariable]: JSON.stringify(options.defect) }),
      },
      onUnexpectedExit: (exit) => void exits.push(exit),
    }),
  );
  opened.defer(() => Promise.all(instances.map((instance) => instance.kill())).then(() => undefined));
  await Promise.all(instances.map((instance) => instance.start()));
  const running = opened.move();
  return {
    instances,
    config,
    postgres,
    kafka,
    faults: [],
    healAll: () => Promise.all(instances.map((instance) => instance.start())).then(() => undefined),
    unexpectedExits: () => exits,
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}
