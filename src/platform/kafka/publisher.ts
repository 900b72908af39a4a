// Batches per topic-partition come in, acknowledged records leave. Guaranteed: a batch that resolves is in the
// log, after every batch that was published to that partition before it. It may be there twice: when an answer
// is lost, it is sent again, unchanged, and readers drop what they have seen by its number.

import { OperatingError } from "../../model/errors.ts";
import type { KafkaSettings } from "./client.ts";
import { type Lane, openLane, type PublisherHooks } from "./lane.ts";
import type { KafkaRecord } from "./producer.ts";
import { openReturns } from "./returns.ts";

/** Writes to any number of topic-partitions, through one producer for each, made when it is first needed. */
export interface KafkaPublisher {
  /**
   * Resolves when the broker has acknowledged all the records, however long that takes: on any doubt the same
   * send is repeated on a new producer, after 100 ms to 1 s, and at once when a broker is back. Batches of more bytes or records than fit one
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
const sendBytesMax = 768 * 1024;
const sendRecordsMax = 500;
/** Lengths, offsets and attributes of a record and of each header, in bytes, rounded up. */
const recordOverheadBytes = 32;
const headerOverheadBytes = 6;

/** A publisher that has not connected yet. */
export function openPublisher(settings: KafkaSettings, hooks: PublisherHooks = {}): KafkaPublisher {
  const returns = openReturns(settings.brokers);
  const lanes = new Map<string, Lane>();
  /** What is being published, by the name of its lane; aborting it rejects that batch. */
  const running = new Map<string, AbortController>();
  let isClosed = false;

  async function publish(topic: string, partition: number, records: KafkaRecord[], signal: AbortSignal) {
    const name = `${topic}/${partition}`;
    if (running.has(name)) throw new Error(`two batches at once for ${name}`);
    const lane = lanes.get(name) ?? openLane(settings, topic, partition, returns, hooks);
    const stop = new AbortController();
    const abort = () => stop.abort(new OperatingError("publish_aborted"));
    lanes.set(name, lane);
    running.set(name, stop);
    signal.addEventListener("abort", abort);
    if (signal.aborted || isClosed) abort();
    try {
      for (let start = 0; start < records.length; ) {
        const end = endOfSend(records, start);
        await sendRange(lane, records, start, end, stop.signal);
        start = end;
      }
    } finally {
      signal.removeEventListener("abort", abort);
      running.delete(name);
    }
  }

  async function close() {
    isClosed = true;
    for (const stop of running.values()) stop.abort(new OperatingError("publish_aborted"));
    await Promise.all(lanes.values().map((lane) => lane.close()));
  }

  const isDegraded = () => lanes.values().some((lane) => lane.isRetrying());
  return { publish, state: () => (isDegraded() ? "degraded" : "up"), close };
}

/** Sends records `start` to `end`; a refused range is halved until the refused record stands alone. */
async function sendRange(
  lane: Lane,
  records: KafkaRecord[],
  start: number,
  end: number,
  signal: AbortSignal,
): Promise<void> {
  try {
    const isWhole = start === 0 && end === records.length;
    await lane.send(isWhole ? records : records.slice(start, end), signal);
  } catch (error) {
    if (!(error instanceof OperatingError && error.code === "record_rejected")) throw error;
    if (end - start === 1) throw new RecordRejected(start, error.cause);
    const middle = (start + end) >> 1;
    await sendRange(lane, records, start, middle, signal);
    await sendRange(lane, records, middle, end, signal);
  }
}

/** The end of the longest range from `start` that fits one send; a record that is too large stands alone. */
function endOfSend(records: KafkaRecord[], start: number): number {
  const endMax = Math.min(records.length, start + sendRecordsMax);
  let bytes = 0;
  for (let end = start; end < endMax; end += 1) {
    bytes += recordBytes(records[end] as KafkaRecord);
    if (bytes > sendBytesMax && end > start) return end;
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
