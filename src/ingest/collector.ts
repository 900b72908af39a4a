// Gathers messages into batches: one batch is one call and one commit. No timer: a batch leaves when the one before
// is stored, so batches grow with the load; a second one leaves beside it only when it is large enough to be worth
// its own commit. (Small batches side by side cost more than they gain: see docs/ingest.md.)
//
// Arrives: validated messages. Leaves: an outcome per message, after the commit only.
// Guaranteed: no two copies of a message share a batch, so that the second finds the first one's number. And what is
// taken is answered soon: the queue has a bound in messages, in bytes and in the time that one is likely to wait;
// beyond it a message is refused at once, before anything was done with it.

import ingestBatch from "../../sql/ingest/ingest-batch.sql" with { type: "text" };
import { OperatingError, overloaded, unavailable } from "../model/errors.ts";
import { isConnectionFailure, isRefusal, type Postgres } from "../platform/postgres.ts";
import { openWindow, type WindowSettings } from "./window.ts";

/** A message as the batch function takes it; payload and metadata are JSON text. */
export interface IncomingMessage {
  conversationId: string;
  senderId: string;
  messageId: string;
  payload: string;
  metadata: string | null;
  traceparent: string;
  tokenIds: readonly string[];
}

/** What became of a message: only `accepted` changed anything. */
export interface IngestOutcome {
  outcome: "accepted" | "replayed" | "reused" | "not_member" | "no_conversation" | "revoked";
  sequence_number: number;
  created_at: Date;
  shard: number;
}

/** The bounds of a queue. */
export interface CollectorSettings {
  /** Batches under way at once. */
  batchesMax: number;
  /** Messages that must wait before a batch leaves beside another one. */
  besideRowsMin: number;
  batchRowsMax: number;
  /** Of payloads and metadata. Counted in UTF-16 units, which is cheap; in UTF-8 it may be three times as much. */
  batchBytesMax: number;
  /** How many messages may wait or be stored at once; beyond that callers get 503. */
  pending: WindowSettings;
  /** The same in bytes, counted as above. */
  pendingBytesMax: number;
  /** Tries of a batch whose connection failed; the call is idempotent. */
  triesMax: number;
}

/** Called once per batch, straight after its commit, with the accepted messages in the order of the batch. */
export type OnCommitted = (accepted: Committed[]) => void;

/** A message that was stored for the first time. */
export interface Committed {
  message: IncomingMessage;
  outcome: IngestOutcome;
}

interface Waiting {
  message: IncomingMessage;
  sinceMs: number;
  resolve(outcome: IngestOutcome): void;
  reject(error: unknown): void;
}

/** Takes messages one at a time, stores them in batches. */
export interface Collector {
  /** Resolves after the commit. Rejects with Problem 503 when the queue is full or Postgres is away (outcome unknown). */
  accept(message: IncomingMessage): Promise<IngestOutcome>;
  /** Whether a message would be refused now: to be asked before one is even read. */
  isFull(): boolean;
  /** Messages that are waiting or being stored. */
  pending(): number;
}

/** What was best by measuring (docs/ingest.md). */
export const collectorDefaults: CollectorSettings = {
  batchesMax: 3,
  besideRowsMin: 32,
  batchRowsMax: 1024,
  batchBytesMax: 1024 * 1024,
  // A turn of the event loop under overload is long, and what it stores is at most this.
  pending: { rowsMin: 3072, rowsMax: 8192, waitMsTarget: 100 },
  pendingBytesMax: 32 * 1024 * 1024,
  triesMax: 3,
};

const retryPauseMs = 50;
const turnMsMax = 5;

/** Opens the queue before the batch function. */
export function openCollector(
  postgres: Postgres,
  settings: CollectorSettings,
  onCommitted: OnCommitted,
): Collector {
  let waiting: Waiting[] = [];
  /** A conversation is in one batch at a time, so that its messages are numbered in the order in which they came. */
  const conversationsUnderWay = new Set<string>();
  const window = openWindow(settings.pending);
  let batchesUnderWay = 0;
  let pendingRows = 0;
  let pendingBytes = 0;
  let flushScheduledAtMs: number | null = null;

  function accept(message: IncomingMessage): Promise<IngestOutcome> {
    if (isFull()) return Promise.reject(overloaded());
    pendingRows += 1;
    pendingBytes += bytesOf(message);
    return new Promise((resolve, reject) => {
      const sinceMs = performance.now();
      waiting.push({ message, sinceMs, resolve, reject });
      scheduleFlush(sinceMs);
    });
  }

  function isFull(): boolean {
    return window.isFull(pendingRows) || pendingBytes >= settings.pendingBytesMax;
  }

  // Once per turn of the event loop, so that all requests that were read together leave together. But a turn has no
  // bound: while more than a thousand sockets are ready, Bun goes on reading and comes to no immediate.
  function scheduleFlush(now: number): void {
    if (!mayLeave()) return;
    if (flushScheduledAtMs === null) {
      flushScheduledAtMs = now;
      setImmediate(flush);
    } else if (now - flushScheduledAtMs > turnMsMax) flush();
  }

  function flush(): void {
    flushScheduledAtMs = null;
    while (mayLeave()) {
      const { batch, rest } = takeBatch(waiting, conversationsUnderWay, settings);
      if (batch.length === 0) return;
      waiting = rest;
      void store(batch);
    }
  }

  function mayLeave(): boolean {
    if (batchesUnderWay === 0) return waiting.length > 0;
    return batchesUnderWay < settings.batchesMax && waiting.length >= settings.besideRowsMin;
  }

  async function store(batch: Waiting[]): Promise<void> {
    batchesUnderWay += 1;
    for (const { message } of batch) conversationsUnderWay.add(message.conversationId);
    window.left(batch.length, performance.now() - (batch[0] as Waiting).sinceMs);
    try {
      const messages = batch.map((entry) => entry.message);
      settle(batch, await storeWithRetry(postgres, messages, settings.triesMax), onCommitted);
    } catch (error) {
      const problem = isConnectionFailure(error)
        ? unavailable("database_unavailable", "The message may not have been stored; send it again.", error)
        : error;
      for (const entry of batch) entry.reject(problem);
    } finally {
      batchesUnderWay -= 1;
      pendingRows -= batch.length;
      for (const { message } of batch) {
        conversationsUnderWay.delete(message.conversationId);
        pendingBytes -= bytesOf(message);
      }
      if (waiting.length >= settings.besideRowsMin) flush();
      else scheduleFlush(performance.now());
    }
  }

  return { accept, isFull, pending: () => pendingRows };
}

function bytesOf({ payload, metadata }: IncomingMessage): number {
  return payload.length + (metadata?.length ?? 0);
}

// The oldest messages within the bounds. A second copy of a message waits for the next batch, and so do messages of
// conversations that are under way.
function takeBatch(
  waiting: Waiting[],
  conversationsUnderWay: ReadonlySet<string>,
  settings: CollectorSettings,
): { batch: Waiting[]; rest: Waiting[] } {
  const batch: Waiting[] = [];
  const later: Waiting[] = [];
  const keys = new Set<string>();
  let bytes = 0;
  let taken = 0;
  for (const entry of waiting) {
    const { conversationId, senderId, messageId } = entry.message;
    const key = `${conversationId}${messageId}${senderId}`;
    if (conversationsUnderWay.has(conversationId) || keys.has(key)) {
      later.push(entry);
      taken += 1;
      continue;
    }
    bytes += bytesOf(entry.message);
    if (batch.length >= settings.batchRowsMax || (bytes > settings.batchBytesMax && batch.length > 0)) break;
    taken += 1;
    batch.push(entry);
    keys.add(key);
  }
  const untouched = waiting.slice(taken);
  return { batch, rest: later.length === 0 ? untouched : later.concat(untouched) };
}

// A connection that failed leaves the outcome unknown; the batch function answers a second call with the first result.
async function storeWithRetry(
  postgres: Postgres,
  messages: IncomingMessage[],
  triesMax: number,
): Promise<IngestOutcome[]> {
  const args = columnsOf(messages);
  for (let tries = 1; ; tries += 1) {
    try {
      return await postgres.query<IngestOutcome>(ingestBatch, args);
    } catch (error) {
      if (!isConnectionFailure(error) || isRefusal(error) || tries >= triesMax) throw error;
      await Bun.sleep(retryPauseMs * tries);
    }
  }
}

function settle(batch: Waiting[], outcomes: IngestOutcome[], onCommitted: OnCommitted): void {
  if (outcomes.length !== batch.length) throw new OperatingError("ingest_answer_incomplete");
  const accepted: Committed[] = [];
  for (const [index, outcome] of outcomes.entries()) {
    if (outcome.outcome === "accepted")
      accepted.push({ message: (batch[index] as Waiting).message, outcome });
  }
  if (accepted.length > 0) onCommitted(accepted);
  for (const [index, outcome] of outcomes.entries()) (batch[index] as Waiting).resolve(outcome);
}

function columnsOf(messages: IncomingMessage[]): (string | null)[][] {
  return [
    messages.map((message) => message.conversationId),
    messages.map((message) => message.senderId),
    messages.map((message) => message.messageId),
    messages.map((message) => message.payload),
    messages.map((message) => message.metadata),
    messages.map((message) => message.traceparent),
    messages.map((message) => message.tokenIds[0] ?? null),
    messages.map((message) => message.tokenIds[1] ?? null),
  ];
}
