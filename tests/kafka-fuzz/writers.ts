// Two programs that write numbered messages to every partition of a topic each, and note what was acknowledged:
// one with kafkajs as its documentation advises, one with our publisher.

import { Kafka, logLevel, type Producer } from "kafkajs";
import { type KafkaSettings, openPublisher } from "../../src/platform/kafka.ts";
import { choose, type Random } from "../support/random.ts";
import type { Written } from "./judge.ts";

/** A program that writes; the counts rise while it runs. */
export interface Writer {
  readonly name: string;
  readonly topic: string;
  readonly acknowledged: Written[];
  /** Sends that were rejected, or repeated by the publisher. */
  doubts(): number;
  /** Resolves after the last acknowledgement once `stop` aborts, or without it when `giveUp` does. */
  run(stop: AbortSignal, giveUp: AbortSignal): Promise<void>;
}

interface WriterOptions {
  settings: KafkaSettings;
  topic: string;
  partitionCount: number;
  random: Random;
}

const messageText = "x".repeat(100);
const barePauseMs = 8;
const rejectedPauseMs = 200;
/** After so many rejections of one send, a program in operation would have been restarted by now. */
const rejectionsMax = 5;
const ourPauseMs = 60;
const connectDeadlineMs = 10_000;

/** One send at a time, over several partitions; a rejected one is sent again, unchanged. */
export function openBareWriter({ settings, topic, partitionCount, random }: WriterOptions): Writer {
  const acknowledged: Written[] = [];
  const next = Array.from({ length: partitionCount }, () => 0);
  let rejections = 0;

  async function sendUntilAcknowledged(messages: Written[], giveUp: AbortSignal) {
    for (let failures = 1; !giveUp.aborted; failures += 1) {
      try {
        producer ??= await connect();
        await producer.send({ topic, acks: -1, messages: messages.map(bareMessage) });
        acknowledged.push(...messages);
        return;
      } catch {
        rejections += 1;
        if (failures % rejectionsMax === 0) await restart();
        await Bun.sleep(rejectedPauseMs);
      }
    }
  }

  let producer: Producer | undefined;
  async function connect() {
    const kafka = new Kafka({
      ...settings,
      clientId: "bare",
      logLevel: logLevel.NOTHING,
      requestTimeout: 5_000,
      connectionTimeout: 1_000,
      retry: { initialRetryTime: 100, maxRetryTime: 1_000, retries: 5 },
    });
    const made = kafka.producer({ idempotent: true, maxInFlightRequests: 1 });
    await made.connect();
    return made;
  }

  async function restart() {
    const old = producer;
    producer = undefined;
    await Promise.race([old?.disconnect().catch(() => {}), Bun.sleep(connectDeadlineMs)]);
  }

  return {
    name: "kafkajs alone",
    topic,
    acknowledged,
    doubts: () => rejections,
    async run(stop, giveUp) {
      const partitions = [...next.keys()];
      while (!stop.aborted) {
        const chosen = choose(random, partitions, random.between(2, 8));
        const messages = chosen.flatMap((partition) => take(next, partition, random.between(1, 4)));
        await sendUntilAcknowledged(messages, giveUp);
        await Bun.sleep(barePauseMs);
      }
      await restart();
    },
  };
}

/** A batch at a time for each partition. */
export function openOurWriter({ settings, topic, partitionCount, random }: WriterOptions): Writer {
  const acknowledged: Written[] = [];
  const next = Array.from({ length: partitionCount }, () => 0);
  let retries = 0;
  const publisher = openPublisher({ ...settings, clientId: "ours" }, { onRetry: () => (retries += 1) });

  async function writePartition(partition: number, stop: AbortSignal, giveUp: AbortSignal) {
    while (!stop.aborted) {
      const messages = take(next, partition, random.between(1, 20));
      const records = messages.map(({ number }) => ({ key: "fuzz", value: textOf(number), headers: {} }));
      try {
        await publisher.publish(topic, partition, records, giveUp);
      } catch (error) {
        if (giveUp.aborted) return;
        throw error;
      }
      acknowledged.push(...messages);
      await Bun.sleep(ourPauseMs);
    }
  }

  return {
    name: "our publisher",
    topic,
    acknowledged,
    doubts: () => retries,
    async run(stop, giveUp) {
      await Promise.all([...next.keys()].map((partition) => writePartition(partition, stop, giveUp)));
      await publisher.close();
    },
  };
}

/** The number of a message, from its text in the log. */
export function numberOf(value: Buffer | null): number {
  return Number.parseInt(String(value), 10);
}

function take(next: number[], partition: number, count: number): Written[] {
  const first = next[partition] ?? 0;
  next[partition] = first + count;
  return Array.from({ length: count }, (_, index) => ({ partition, number: first + index }));
}

function bareMessage({ partition, number }: Written) {
  return { partition, value: textOf(number) };
}

function textOf(number: number): string {
  return `${number} ${messageText}`;
}
