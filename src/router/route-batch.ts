// Consecutive records of one outbox partition come in; those not seen before leave for the same partition of the
// events topic and of their channels' topics; how many are done is answered, for the offset to be committed.
// Guaranteed: a watermark is raised only when everything up to it is acknowledged or parked, and an offset confirmed
// only when its watermark is raised: a crash anywhere repeats, never loses.
// A record that cannot be passed holds back those of its own key. The others of the batch are forwarded, but only what
// stands before it is confirmed: the rest comes again after a pause, and what was forwarded is then dropped as a repeat.
import type { TopicNames } from "../config.ts";
import { publishPassable, reasonOf } from "../platform/dead-letters.ts";
import { type Holds, triesMax } from "../platform/holds.ts";
import type { ConsumedRecord, KafkaBatch, KafkaPublisher } from "../platform/kafka.ts";
import { decodeEvent, type RoutedEvent } from "../platform/kafka-event.ts";
import type { Log } from "../platform/log.ts";
import type { Postgres } from "../platform/postgres.ts";
import type { Watchdog } from "../platform/watchdog.ts";
import { closeLetters, openLettersOf, park } from "./letters.ts";
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

/** What is remembered of a partition between its batches. */
export interface PartitionMemory {
  /** By the records' keys; an item is an offset. */
  holds: Holds;
  /** Offsets of records without a number that were parked behind one that waits: they come again. */
  parked: Set<string>;
}

/** An event, and where its record stands in the batch. */
interface PlacedEvent extends RoutedEvent {
  position: number;
}

/** One batch while it is worked on. */
interface Work {
  tools: RouteTools;
  batch: KafkaBatch;
  memory: PartitionMemory;
  watchdog: Watchdog;
  /** By key: the position from which on its records wait. */
  waits: Map<string, number>;
}

const sliceRecordsMax = 1_000;
const sliceBytesMax = 1024 * 1024;

/**
 * Routes a batch slice by slice. Answers how many records from its start are done: all of them, unless one waits, the
 * batch became stale or a later slice failed. Rejects when the first slice fails: with Postgres's error, or with
 * `publish_aborted` when `batch.signal` aborted.
 */
export async function routeBatch(
  tools: RouteTools,
  batch: KafkaBatch,
  memory: PartitionMemory,
  watchdog: Watchdog,
): Promise<number> {
  const work: Work = { tools, batch, memory, watchdog, waits: new Map() };
  let done = 0;
  while (done < batch.records.length && !batch.isStale()) {
    const end = endOfSlice(batch.records, done);
    try {
      await routeSlice(work, done, end);
    } catch (error) {
      if (done === 0) throw error;
      tools.log.warn({ err: error, partition: batch.partition }, "batch routed in part");
      break;
    }
    done = end;
    await watchdog.wait(batch.heartbeat());
  }
  const confirmed = firstWaiting(work, done);
  for (const { offset } of batch.records.slice(0, confirmed)) memory.parked.delete(offset);
  return confirmed;
}

async function routeSlice(work: Work, start: number, end: number): Promise<void> {
  const { tools, watchdog } = work;
  const events = await watchdog.wait(decode(work, start, end));
  const fresh = await dropRepeats(tools, events);
  const { acknowledged, parked } = await watchdog.wait(forwardAll(work, fresh));
  await tools.watermarks.raise(numbersOf([...acknowledged, ...parked]));
  const replays = acknowledged.filter((event) => event.deadLetterId !== null);
  if (replays.length > 0) await closeLetters(tools.postgres, replays);
  releasePassed(work, events);
}

/** The events of a slice but those that wait, or were parked before. */
async function decode(work: Work, start: number, end: number): Promise<PlacedEvent[]> {
  const { batch, memory, waits } = work;
  const events: PlacedEvent[] = [];
  for (let position = start; position < end; position += 1) {
    const read = batch.records[position] as ConsumedRecord;
    if (memory.parked.has(read.offset)) continue;
    const group = groupOf(read);
    if (memory.holds.isWaiting(group) && !waits.has(group)) waits.set(group, position);
    if (isKept(work, group, position)) continue;
    try {
      events.push({ ...decodeEvent(read), position });
    } catch (error) {
      if (await refuse(work, position, reasonOf(error))) memory.parked.add(read.offset);
    }
  }
  return events;
}

/** The events above their conversation's watermark, and replays of letters that are still open; in order. */
async function dropRepeats(tools: RouteTools, events: PlacedEvent[]): Promise<PlacedEvent[]> {
  const reached = await tools.watermarks.read(new Set(events.map((event) => event.conversationId)));
  const open = await openLettersOf(tools.postgres, events);
  return events.filter(({ conversationId, sequenceNumber, deadLetterId }) => {
    if (deadLetterId !== null) return open.delete(deadLetterId);
    if (sequenceNumber <= (reached.get(conversationId) ?? 0)) return false;
    reached.set(conversationId, sequenceNumber);
    return true;
  });
}

/** Answers the events that are acknowledged on all of their topics, with all before them of their key, and those parked. */
async function forwardAll(work: Work, events: PlacedEvent[]) {
  const { batch, memory } = work;
  const acknowledged: PlacedEvent[] = [];
  const parked: PlacedEvent[] = [];
  const forwardSome = async (some: PlacedEvent[]) => {
    const refused = await forward(work, some);
    for (const event of some) {
      if (isKept(work, event.record.key, event.position)) continue;
      const reason = refused.get(event);
      if (reason === undefined) acknowledged.push(event);
      else if (await refuse(work, event.position, reason, event)) parked.push(event);
    }
  };
  // What failed before is tried alone, so that it is not searched for again among all others.
  const isSuspect = ({ record, position }: PlacedEvent) =>
    memory.holds.isSuspect(record.key, offsetAt(batch, position));
  const suspects = memory.holds.isEmpty() ? [] : events.filter(isSuspect);
  for (const suspect of suspects) await forwardSome([suspect]);
  const isLeft = (event: PlacedEvent) =>
    !suspects.includes(event) && !isKept(work, event.record.key, event.position);
  await forwardSome(events.filter(isLeft));
  return { acknowledged, parked };
}

/** Sends events to their topics; answers those that cannot be passed, with the reason, when the others are acknowledged. */
async function forward({ tools, batch }: Work, events: PlacedEvent[]): Promise<Map<PlacedEvent, string>> {
  const { partition, signal } = batch;
  const refused = new Map<PlacedEvent, string>();
  const forwardTo = (topic: string, chosen: PlacedEvent[]) =>
    publishPassable(tools.publisher, { topic, partition, signal }, chosen, (event, reason) => {
      refused.set(event, reason);
      return true;
    });
  const channels = new Set(events.flatMap((event) => event.channels));
  const toChannels = [...channels].map((channel) => {
    if (!tools.channels.includes(channel)) return tools.onUnknownChannel(channel);
    const chosen = events.filter((event) => event.channels.includes(channel));
    return forwardTo(tools.topics.channel(channel), chosen);
  });
  await Promise.all([forwardTo(tools.topics.events, events), ...toChannels]);
  return refused;
}

/** Holds a record's key back for a while, or parks the record after its last try; answers whether it is parked. */
async function refuse(work: Work, position: number, reason: string, event?: RoutedEvent): Promise<boolean> {
  const { tools, batch, memory, waits } = work;
  const read = batch.records[position] as ConsumedRecord;
  const group = groupOf(read);
  const tries = memory.holds.fail(group, read.offset);
  if (tries < triesMax) {
    waits.set(group, Math.min(position, waits.get(group) ?? position));
    return false;
  }
  await park(tools, batch, read, { reason, tries, ...(event && { event }) });
  memory.holds.release(group);
  return true;
}

/** Up to which number each conversation is through. */
function numbersOf(events: PlacedEvent[]): Numbers {
  const numbers: Numbers = new Map();
  for (const { conversationId, sequenceNumber } of events) {
    numbers.set(conversationId, Math.max(sequenceNumber, numbers.get(conversationId) ?? 0));
  }
  return numbers;
}

/** A hold ends with its record, also when that turned out to be a repeat. */
function releasePassed(work: Work, events: PlacedEvent[]): void {
  const { batch, memory } = work;
  if (memory.holds.isEmpty()) return;
  for (const { record, position } of events) {
    if (isKept(work, record.key, position)) continue;
    if (memory.holds.isSuspect(record.key, offsetAt(batch, position))) memory.holds.release(record.key);
  }
}

/** Whether the record at a position is not to be passed in this batch. */
function isKept({ waits }: Work, group: string, position: number): boolean {
  const from = waits.get(group);
  return from !== undefined && position >= from;
}

/** The position of the first record before `end` that waits, or `end`. */
function firstWaiting(work: Work, end: number): number {
  if (work.waits.size === 0) return end;
  const { records } = work.batch;
  const first = records.findIndex((read, position) => isKept(work, groupOf(read), position));
  return first === -1 ? end : Math.min(first, end);
}

/** Records of one key keep their order; one without a key is alone. */
function groupOf({ key, offset }: ConsumedRecord): string {
  return key ?? offset;
}

function offsetAt(batch: KafkaBatch, position: number): string {
  return (batch.records[position] as ConsumedRecord).offset;
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
