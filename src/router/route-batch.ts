// Consecutive records of one outbox partition come in; those not seen before leave for the same partition of the
// events topic and of their channels' topics; how many are done is answered, for the offset to be committed.
// Guaranteed: a watermark is raised only when everything up to it is acknowledged, and an offset confirmed only
// when its watermark is raised: a crash anywhere repeats, never loses.
import parkRecordSql from "../../sql/router/park-record.sql" with { type: "text" };
import type { TopicNames } from "../config.ts";
import { OperatingError } from "../model/errors.ts";
import { publishDeadLetter, publishOrPark } from "../platform/dead-letters.ts";
import type { ConsumedRecord, KafkaBatch, KafkaPublisher, KafkaRecord } from "../platform/kafka.ts";
import { decodeEvent, type RoutedEvent } from "../platform/kafka-event.ts";
import type { Log } from "../platform/log.ts";
import type { Postgres } from "../platform/postgres.ts";
import type { Watchdog } from "../platform/watchdog.ts";
import type { Numbers, Watermarks } from "./watermarks.ts";

/** What routing works with. */
export interface RouteTools {
  postgres: Postgres;
  publisher: KafkaPublisher;
  topics: TopicNames;
  /** The channels that have a topic; an event for any other goes to the events topic only. */
  channels: readonly string[];
  onUnknownChannel(channel: string): void;
  watermarks: Watermarks;
  log: Log;
}

/** A record that is taken out of the walk; `stored` is what the dead letter keeps of it. */
interface Parked {
  reason: string;
  record: KafkaRecord;
  stored: object;
  event?: RoutedEvent;
}

const sliceRecordsMax = 1_000;
const sliceBytesMax = 1024 * 1024;

/**
 * Routes a batch slice by slice. Answers how many records from its start are done: all of them, unless the batch
 * became stale or a later slice failed. Rejects when the first slice fails: with Postgres's error, or with
 * `publish_aborted` when `batch.signal` aborted.
 */
export async function routeBatch(tools: RouteTools, batch: KafkaBatch, watchdog: Watchdog): Promise<number> {
  let done = 0;
  while (done < batch.records.length && !batch.isStale()) {
    const end = endOfSlice(batch.records, done);
    try {
      await routeSlice(tools, batch, batch.records.slice(done, end), watchdog);
    } catch (error) {
      if (done === 0) throw error;
      tools.log.warn({ err: error, partition: batch.partition }, "batch routed in part");
      break;
    }
    done = end;
    await watchdog.wait(batch.heartbeat());
  }
  return done;
}

async function routeSlice(
  tools: RouteTools,
  batch: KafkaBatch,
  records: ConsumedRecord[],
  watchdog: Watchdog,
): Promise<void> {
  const events = await watchdog.wait(decodeOrPark(tools, batch, records));
  const { fresh, reached } = await dropRepeats(tools.watermarks, events);
  await watchdog.wait(forward(tools, batch, fresh));
  await tools.watermarks.raise(reached);
}

/** A record that cannot be read is parked, and does not stop its partition. */
async function decodeOrPark(tools: RouteTools, batch: KafkaBatch, records: ConsumedRecord[]) {
  const events: RoutedEvent[] = [];
  for (const read of records) {
    try {
      events.push(decodeEvent(read));
    } catch (error) {
      if (!(error instanceof OperatingError)) throw error;
      const { key, headers, offset } = read;
      const record = { key: key ?? "", value: String(read.value ?? ""), headers };
      // Its value need not be text.
      const value_base64 = read.value?.toString("base64") ?? null;
      const stored = { topic: batch.topic, partition: batch.partition, offset, key, headers, value_base64 };
      await park(tools, batch, { reason: error.code, record, stored });
    }
  }
  return events;
}

/** The events above their conversation's watermark, in order, and the numbers that they reach. */
async function dropRepeats(watermarks: Watermarks, events: RoutedEvent[]) {
  const known = await watermarks.read(new Set(events.map((event) => event.conversationId)));
  const reached: Numbers = new Map();
  const fresh = events.filter(({ conversationId, sequenceNumber }) => {
    if (sequenceNumber <= (reached.get(conversationId) ?? known.get(conversationId) ?? 0)) return false;
    reached.set(conversationId, sequenceNumber);
    return true;
  });
  return { fresh, reached };
}

/** Resolves when every event is acknowledged on each of its topics, or parked. */
async function forward(tools: RouteTools, batch: KafkaBatch, events: RoutedEvent[]): Promise<void> {
  const { partition, signal } = batch;
  const refused: Parked[] = [];
  const forwardTo = async (topic: string, chosen: RoutedEvent[]) => {
    const records = chosen.map((event) => event.record);
    await publishOrPark(tools.publisher, { topic, partition, signal }, records, async (position) => {
      const event = chosen[position] as RoutedEvent;
      const stored = { topic, partition, ...event.record };
      refused.push({ reason: "record_rejected", record: event.record, stored, event });
    });
  };
  const channels = new Set(events.flatMap((event) => event.channels));
  const toChannels = [...channels].map((channel) => {
    if (!tools.channels.includes(channel)) return tools.onUnknownChannel(channel);
    const chosen = events.filter((event) => event.channels.includes(channel));
    return forwardTo(tools.topics.channel(channel), chosen);
  });
  await Promise.all([forwardTo(tools.topics.events, events), ...toChannels]);
  for (const parked of refused) await park(tools, batch, parked);
}

/** The dead letter is published before it is stored: a crash between the two repeats it. */
async function park(tools: RouteTools, batch: KafkaBatch, parked: Parked): Promise<void> {
  const { reason, record, stored, event } = parked;
  const to = { topic: tools.topics.deadLetters, partition: batch.partition, signal: batch.signal };
  await publishDeadLetter(tools.publisher, to, { stage: "router", reason, record });
  const tries = 1;
  await tools.postgres.query(parkRecordSql, [
    event?.conversationId ?? null,
    event?.sequenceNumber ?? null,
    reason,
    tries,
    JSON.stringify(stored),
  ]);
  tools.log.error({ reason, topic: batch.topic, partition: batch.partition }, "record parked");
}

/** The end of the slice that begins at `start`: bounded by records and bytes, but one record at least. */
function endOfSlice(records: ConsumedRecord[], start: number): number {
  const endMax = Math.min(records.length, start + sliceRecordsMax);
  let bytes = 0;
  for (let end = start; end < endMax; end += 1) {
    bytes += records[end]?.value?.length ?? 0;
    if (bytes > sliceBytesMax && end > start) return end;
  }
  return endMax;
}
