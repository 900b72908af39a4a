// Batches of records leave, one at a time for each partition and in order; how many of each are done comes back,
// and exactly those are committed. Guaranteed: a record that is not confirmed is read again, by this consumer
// or by whichever member of the group gets its partition. Whatever stops the consumer, a new one takes its place.

import type { Consumer, EachBatchPayload, Kafka, KafkaMessage } from "kafkajs";
// @ts-expect-error an inner module of kafkajs, without types
import Runner from "kafkajs/src/consumer/runner.js";
import { OperatingError } from "../../model/errors.ts";
import { pause, withDeadline } from "../pause.ts";
import { backOff, type KafkaSettings, openLink, retrySettings } from "./client.ts";

/** A record as it was read; `offset` is a decimal number of 64 bits. */
export interface ConsumedRecord {
  key: string | null;
  value: Buffer | null;
  headers: Record<string, string>;
  offset: string;
  timestampMs: number;
}

/** Consecutive records of one partition, at least one. */
export interface KafkaBatch {
  topic: string;
  partition: number;
  records: ConsumedRecord[];
  /** The offset after the partition's last record, as the broker told it with this batch. */
  highWatermark: string;
  /** True when the partition may be another member's by now: stop, and confirm what is done. */
  isStale(): boolean;
  /** Aborts a few seconds after the batch became stale: whatever still waits must end. */
  signal: AbortSignal;
  /** Heartbeats are sent by themselves while a batch is worked on; this one sends one now if it is due. */
  heartbeat(): Promise<void>;
}

/** What a consumer group reads, and who is told. */
export interface ConsumerOptions {
  groupId: string;
  topics: string[];
  /** Where a group that never committed begins. */
  fromBeginning: true;
  /**
   * Works on a batch and returns how many records from its start are confirmed. What is not confirmed comes
   * again, after a pause when that is everything. A throw confirms nothing.
   */
  onBatch(batch: KafkaBatch): Promise<number>;
  /** Told at each change: `up` when it has joined the group, `degraded` when it lost it or can not join. */
  onState?(state: "up" | "degraded"): void;
  /** Why a batch was thrown back or the consumer rebuilt, for the log. */
  onError?(error: unknown): void;
}

const sessionTimeoutMs = 6_000;
const heartbeatIntervalMs = 1_000;
const rebalanceTimeoutMs = 10_000;
const fetchWaitMs = 250;
const partitionsConcurrentMax = 16;
const commitDeadlineMs = 6_000;
/** A stale batch may finish within this time, half of what a rebalance waits for its members. */
const staleGraceMs = 5_000;
/** Longer than a join takes when it waits for a dead member. Without a heartbeat for so long, something hangs. */
const silenceMaxMs = 20_000;
const disconnectDeadlineMs = 3_000;
/** Before a batch of which nothing was confirmed is read again. */
const againPauseMs = 250;

/**
 * Starts a member of a consumer group and keeps it running until `close`, whatever happens to the brokers.
 * Returns at once; `onState("up")` tells that it has joined. `close` lets running batches end (5 s at most),
 * commits what they confirm, and leaves the group.
 */
export async function runConsumer(
  settings: KafkaSettings,
  options: ConsumerOptions,
): Promise<{ close(): Promise<void> }> {
  const closing = new AbortController();
  let state: "up" | "degraded" | undefined;
  const onState: ConsumerOptions["onState"] = (next) => {
    if (next !== state) options.onState?.(next);
    state = next;
  };
  const running = keepRunning(settings, { ...options, onState }, closing.signal);
  return {
    close() {
      closing.abort();
      return running;
    },
  };
}

async function keepRunning(
  settings: KafkaSettings,
  options: ConsumerOptions,
  closing: AbortSignal,
): Promise<void> {
  let failures = 0;
  while (!closing.aborted) {
    const { hasJoined, reason } = await runMember(settings, options, closing);
    if (closing.aborted) return;
    options.onState?.("degraded");
    options.onError?.(reason);
    failures = hasJoined ? 0 : failures + 1;
    await backOff(failures, closing);
  }
}

/** One membership: joins, works, and resolves with what ended it once nothing of it runs any more. */
async function runMember(settings: KafkaSettings, options: ConsumerOptions, closing: AbortSignal) {
  const link = openLink(settings);
  const consumer = newConsumer(link.kafka, options.groupId);
  const ending = new AbortController();
  const drained = Promise.withResolvers<void>();
  const working = new Set<Promise<void>>();
  let hasJoined = false;
  let seenAliveAtMs = performance.now();

  const end = (reason: unknown) => ending.abort(reason);
  const endOnClose = () => end(new OperatingError("consumer_closed"));
  closing.addEventListener("abort", endOnClose);
  const watch = setInterval(() => {
    if (performance.now() - seenAliveAtMs > silenceMaxMs) end(new OperatingError("consumer_silent"));
  }, heartbeatIntervalMs);
  consumer.on(consumer.events.CRASH, (event) => end(event.payload.error));
  consumer.on(consumer.events.HEARTBEAT, () => {
    seenAliveAtMs = performance.now();
  });
  consumer.on(consumer.events.GROUP_JOIN, () => {
    seenAliveAtMs = performance.now();
    hasJoined = true;
    options.onState?.("up");
  });

  async function start() {
    await consumer.connect();
    await consumer.subscribe({ topics: options.topics, fromBeginning: options.fromBeginning });
    await consumer.run({
      autoCommit: false,
      eachBatchAutoResolve: false,
      partitionsConsumedConcurrently: partitionsConcurrentMax,
      eachBatch: async (payload) => {
        // kafkajs drops commits without a word once it stops, so it is stopped only after the last batch. What
        // it brings until then is left alone.
        if (ending.signal.aborted) return drained.promise;
        const work = workOn(payload);
        working.add(work);
        await work.finally(() => working.delete(work));
      },
    });
  }

  async function workOn(payload: EachBatchPayload) {
    const { topic, partition, messages } = payload.batch;
    const confirmedCount = await askForConfirmation(options, payload, ending.signal);
    const last = messages[confirmedCount - 1];
    if (!last) return pause(againPauseMs, ending.signal);
    try {
      const offset = (BigInt(last.offset) + 1n).toString();
      const committing = consumer.commitOffsets([{ topic, partition, offset }]);
      await withDeadline(committing, commitDeadlineMs, "commit_timed_out");
      payload.resolveOffset(last.offset);
    } catch (error) {
      // kafkajs looks its coordinator up only when it joins, and reads on without it: join anew.
      end(error);
    }
  }

  start().catch(end);
  await new Promise((resolve) => ending.signal.addEventListener("abort", resolve));
  await withDeadline(Promise.all(working), staleGraceMs + commitDeadlineMs, "batch_hangs").catch(
    options.onError,
  );
  drained.resolve();
  await withDeadline(consumer.disconnect(), disconnectDeadlineMs, "disconnect_timed_out").catch(() => {});
  link.cut();
  clearInterval(watch);
  closing.removeEventListener("abort", endOnClose);
  return { hasJoined, reason: ending.signal.reason as unknown };
}

function newConsumer(kafka: Kafka, groupId: string): Consumer {
  return kafka.consumer({
    groupId,
    allowAutoTopicCreation: false,
    sessionTimeout: sessionTimeoutMs,
    heartbeatInterval: heartbeatIntervalMs,
    rebalanceTimeout: rebalanceTimeoutMs,
    maxWaitTimeInMs: fetchWaitMs,
    // kafkajs's own restart would go on with a coordinator that is gone.
    retry: { ...retrySettings, restartOnFailure: async () => false },
  });
}

/** Shows a batch to its worker, with heartbeats until it returns. A throw is told to `onError` and counts as 0. */
async function askForConfirmation(options: ConsumerOptions, payload: EachBatchPayload, ending: AbortSignal) {
  const { topic, partition, messages, highWatermark } = payload.batch;
  const abandoned = new AbortController();
  let grace: Timer | undefined;
  const lose = () => {
    grace ??= setTimeout(() => abandoned.abort(new OperatingError("batch_stale")), staleGraceMs);
  };
  const heartbeat = () => payload.heartbeat().catch(lose);
  const heart = setInterval(() => void heartbeat(), heartbeatIntervalMs);
  ending.addEventListener("abort", lose);
  if (ending.aborted) lose();
  try {
    return await options.onBatch({
      topic,
      partition,
      records: messages.map(toRecord),
      highWatermark,
      isStale: () => grace !== undefined || payload.isStale() || !payload.isRunning(),
      signal: abandoned.signal,
      heartbeat,
    });
  } catch (error) {
    options.onError?.(error);
    return 0;
  } finally {
    clearInterval(heart);
    clearTimeout(grace);
    ending.removeEventListener("abort", lose);
  }
}

function toRecord(message: KafkaMessage): ConsumedRecord {
  const headers: Record<string, string> = {};
  for (const name in message.headers) headers[name] = String(message.headers[name]);
  return {
    key: message.key?.toString() ?? null,
    value: message.value,
    headers,
    offset: message.offset,
    timestampMs: Number(message.timestamp),
  };
}

// When a broker comes or goes, kafkajs lets its fetchers end and starts others. If it is stopped meanwhile nobody stops
// those: they bring nothing, at once and again and again, and the thread does nothing else any more.
const fetchFrom = Runner.prototype.fetch;
Runner.prototype.fetch = function (this: StoppableRunner, brokerId: string) {
  if (!this.running) void this.fetchManager.stop();
  return fetchFrom.call(this, brokerId);
};

interface StoppableRunner {
  running: boolean;
  fetchManager: { stop(): Promise<void> };
}
