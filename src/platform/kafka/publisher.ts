// Batches per topic-partition come in, acknowledged records leave. Guaranteed: a batch that resolves is in the
// log, after every batch that was published to that partition before it. It may be there twice: when an answer
// is lost, the batch is sent again, unchanged, and readers drop what they have seen by its number.

import { OperatingError } from "../../model/errors.ts";
import { backOff, type KafkaSettings } from "./client.ts";
import { type KafkaRecord, openProducer, type PartitionProducer } from "./producer.ts";

/** Writes to any number of topic-partitions, through one producer for each, made when it is first needed. */
export interface KafkaPublisher {
  /**
   * Resolves when the broker has acknowledged all the records, however long that takes: on any doubt the same
   * batch is sent again on a new producer, after 100 ms to 1 s. Batches of more bytes or records than fit one
   * send are split, in order. Rejects with the OperatingError `publish_aborted` when `signal` aborts or the
   * publisher is closed (then the batch may or may not be written), and with RecordRejected.
   * One call at a time for each topic-partition; a second one is a programming error and throws.
   */
  publish(topic: string, partition: number, records: KafkaRecord[], signal: AbortSignal): Promise<void>;
  /** `degraded` while any send is being retried. */
  state(): "up" | "degraded";
  /** Aborts what is being published and disconnects, within two seconds. */
  close(): Promise<void>;
}

/** What the publisher tells of its work, for metrics. `reason` is one of the few codes of producer.ts. */
export interface PublisherHooks {
  onSend?(topic: string, seconds: number): void;
  onRetry?(topic: string, reason: string): void;
}

/**
 * The broker refuses a record for ever, whoever sends it (`record_rejected`; the broker's error is the cause).
 * The first `acknowledgedCount` records of the batch are in the log, the next one is the refused one, and
 * nothing after it was sent: park it, then publish the rest.
 */
export class RecordRejected extends OperatingError {
  readonly acknowledgedCount: number;

  constructor(acknowledgedCount: number, cause: unknown) {
    super("record_rejected", { cause });
    this.name = "RecordRejected";
    this.acknowledgedCount = acknowledgedCount;
  }
}

// Under the broker's `max.message.bytes` of 1 MiB. kafkajs's cost of a send is quadratic in its records.
const batchBytesMax = 768 * 1024;
const batchRecordsMax = 500;
/** Lengths, offsets and attributes of a record and of each header, in bytes, rounded up. */
const recordOverheadBytes = 32;
const headerOverheadBytes = 6;

interface Lane {
  topic: string;
  partition: number;
  producer: PartitionProducer | undefined;
  /** Set while a batch is being published; aborting it rejects that batch. */
  running: AbortController | undefined;
}

/** A publisher that has not connected yet. */
export function openPublisher(settings: KafkaSettings, hooks: PublisherHooks = {}): KafkaPublisher {
  const lanes = new Map<string, Lane>();
  let retryingCount = 0;
  let isClosed = false;

  async function publish(topic: string, partition: number, records: KafkaRecord[], signal: AbortSignal) {
    const lane = laneOf(topic, partition);
    if (lane.running) throw new Error(`two batches at once for ${topic}/${partition}`);
    const running = new AbortController();
    const abort = () => running.abort(new OperatingError("publish_aborted"));
    lane.running = running;
    signal.addEventListener("abort", abort);
    try {
      if (isClosed || signal.aborted) abort();
      for (let start = 0; start < records.length; ) {
        const end = endOfSend(records, start);
        await sendRange(lane, records, start, end, running.signal);
        start = end;
      }
    } finally {
      signal.removeEventListener("abort", abort);
      lane.running = undefined;
    }
  }

  /** Sends records `start` to `end`; a refused range is halved until the refused record stands alone. */
  async function sendRange(
    lane: Lane,
    records: KafkaRecord[],
    start: number,
    end: number,
    signal: AbortSignal,
  ) {
    try {
      const isWhole = start === 0 && end === records.length;
      await sendUntilAcknowledged(lane, isWhole ? records : records.slice(start, end), signal);
    } catch (error) {
      if (!(error instanceof OperatingError && error.code === "record_rejected")) throw error;
      if (end - start === 1) throw new RecordRejected(start, error.cause);
      const middle = (start + end) >> 1;
      await sendRange(lane, records, start, middle, signal);
      await sendRange(lane, records, middle, end, signal);
    }
  }

  async function sendUntilAcknowledged(lane: Lane, records: KafkaRecord[], signal: AbortSignal) {
    let attempt = 0;
    try {
      for (; ; attempt += 1) {
        signal.throwIfAborted();
        const doubt = await trySend(lane, records, signal);
        if (doubt === undefined) return;
        if (attempt === 0) retryingCount += 1;
        hooks.onRetry?.(lane.topic, doubt);
        await backOff(attempt, signal);
      }
    } finally {
      if (attempt > 0) retryingCount -= 1;
    }
  }

  /** One send. Returns the reason to try again, if any; throws when there is no point in it. */
  async function trySend(
    lane: Lane,
    records: KafkaRecord[],
    signal: AbortSignal,
  ): Promise<string | undefined> {
    try {
      lane.producer ??= await openProducer(settings, lane.topic, lane.partition, signal);
      const startedAtMs = performance.now();
      await lane.producer.send(records, signal);
      hooks.onSend?.(lane.topic, (performance.now() - startedAtMs) / 1_000);
      return undefined;
    } catch (error) {
      lane.producer?.discard();
      lane.producer = undefined;
      if (signal.aborted || !(error instanceof OperatingError) || error.code === "record_rejected")
        throw error;
      return error.code;
    }
  }

  function laneOf(topic: string, partition: number): Lane {
    const name = `${topic}/${partition}`;
    let lane = lanes.get(name);
    if (!lane) {
      lane = { topic, partition, producer: undefined, running: undefined };
      lanes.set(name, lane);
    }
    return lane;
  }

  async function close() {
    isClosed = true;
    for (const lane of lanes.values()) lane.running?.abort(new OperatingError("publish_aborted"));
    await Promise.all([...lanes.values()].map((lane) => lane.producer?.close()));
  }

  return { publish, state: () => (retryingCount > 0 ? "degraded" : "up"), close };
}

/** The end of the longest range from `start` that fits one send; a record that is too large stands alone. */
function endOfSend(records: KafkaRecord[], start: number): number {
  const endMax = Math.min(records.length, start + batchRecordsMax);
  let bytes = 0;
  for (let end = start; end < endMax; end += 1) {
    bytes += recordBytes(records[end] as KafkaRecord);
    if (bytes > batchBytesMax && end > start) return end;
  }
  return endMax;
}

function recordBytes(record: KafkaRecord): number {
  let bytes = recordOverheadBytes + Buffer.byteLength(record.key) + Buffer.byteLength(record.value);
  for (const name in record.headers) {
    bytes +=
      headerOverheadBytes + Buffer.byteLength(name) + Buffer.byteLength(record.headers[name] as string);
  }
  return bytes;
}
