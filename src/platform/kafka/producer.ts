// A batch for one partition comes in; what leaves is the certainty that it is in the log, or a doubt.
// kafkajs reports success for records that it never wrote, so each of its answers is checked here, and after
// a doubt the caller must discard the producer: its idea of the sequence may no longer be the broker's.

import type { Producer, RecordMetadata } from "kafkajs";
import { OperatingError } from "../../model/errors.ts";
import { withDeadline } from "../pause.ts";
import { type KafkaLink, type KafkaSettings, openLink, requestTimeoutMs, retrySettings } from "./client.ts";

/** A record to write. Its partition is not part of it: the producer has just one. */
export interface KafkaRecord {
  key: string;
  value: string;
  headers: Record<string, string>;
}

/** An idempotent producer that writes to one topic-partition, one send at a time. */
export interface PartitionProducer {
  /**
   * Resolves when all in-sync replicas have the records. Else rejects with an OperatingError: `record_rejected`
   * when the broker refused them for what they are, any other code when they may or may not be written.
   */
  send(records: KafkaRecord[], signal: AbortSignal): Promise<void>;
  /** Ends it in peace, by a deadline. */
  close(): Promise<void>;
  /** Ends it at once: nothing that it still has in hand reaches a broker. */
  discard(): void;
}

const connectDeadlineMs = 10_000;
// Three request timeouts: when a follower dies, the answer comes after its fencing (9 s), to a retry of the
// same producer, which the broker knows for a repeat. Giving up earlier would write the batch twice.
const sendDeadlineMs = 3 * requestTimeoutMs;
const disconnectDeadlineMs = 2_000;

/** The broker's answers that depend on the records only, so that a retry can not help. */
const refusals = new Set([
  "MESSAGE_TOO_LARGE",
  "RECORD_LIST_TOO_LARGE",
  "INVALID_RECORD",
  "INVALID_TIMESTAMP",
]);

/** A connected producer with a fresh producer id. Rejects with `producer_unavailable`, or `signal`'s reason. */
export async function openProducer(
  settings: KafkaSettings,
  topic: string,
  partition: number,
  signal: AbortSignal,
): Promise<PartitionProducer> {
  const link = openLink(settings);
  const producer = link.kafka.producer({
    idempotent: true,
    maxInFlightRequests: 1,
    allowAutoTopicCreation: false,
    retry: retrySettings,
    createPartitioner: () => () => partition,
  });
  try {
    await withDeadline(producer.connect(), connectDeadlineMs, "producer_unavailable", signal);
  } catch (cause) {
    link.cut();
    signal.throwIfAborted();
    throw new OperatingError("producer_unavailable", { cause });
  }
  return guard(producer, link, topic, partition);
}

function guard(producer: Producer, link: KafkaLink, topic: string, partition: number): PartitionProducer {
  let nextOffset = 0n;
  return {
    async send(records, signal) {
      const sending = producer.send({ topic, messages: records, acks: -1 });
      let answers: RecordMetadata[];
      try {
        answers = await withDeadline(sending, sendDeadlineMs, "send_timed_out", signal);
      } catch (cause) {
        signal.throwIfAborted();
        if (isRefusal(cause)) throw new OperatingError("record_rejected", { cause });
        throw cause instanceof OperatingError ? cause : new OperatingError("send_failed", { cause });
      }
      const answer = answers.find((entry) => entry.partition === partition && entry.topicName === topic);
      if (answer?.baseOffset === undefined) throw new OperatingError("answer_missing");
      // An offset from before the end of the last send is the broker's answer to that one: it took this
      // send for its repeat, and wrote nothing.
      const baseOffset = BigInt(answer.baseOffset);
      if (baseOffset < nextOffset) throw new OperatingError("answer_of_an_earlier_send");
      nextOffset = baseOffset + BigInt(records.length);
    },
    async close() {
      await withDeadline(producer.disconnect(), disconnectDeadlineMs, "disconnect_timed_out").catch(() => {});
      link.cut();
    },
    discard: () => link.cut(),
  };
}

function isRefusal(error: unknown): boolean {
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    if ("type" in cause && refusals.has(String(cause.type))) return true;
  }
  return false;
}
