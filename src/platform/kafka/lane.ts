// The way into one partition: records come in, and are sent and sent again until they are acknowledged.

import { OperatingError } from "../../model/errors.ts";
import { backOff, type KafkaSettings } from "./client.ts";
import { type KafkaRecord, openProducer, type PartitionProducer } from "./producer.ts";
import type { Returns } from "./returns.ts";

/** What the publisher tells of its work, for metrics. `reason` is one of the few codes of producer.ts. */
export interface PublisherHooks {
  onSend?(topic: string, seconds: number): void;
  onRetry?(topic: string, reason: string): void;
}

/** One topic-partition of a publisher. */
export interface Lane {
  /**
   * Resolves when all in-sync replicas have the records, in one send; repeats it on any doubt, with a producer
   * of a new id, which knows nothing of the sends before. Rejects with `record_rejected`, and `signal`'s reason.
   */
  send(records: KafkaRecord[], signal: AbortSignal): Promise<void>;
  isRetrying(): boolean;
  close(): Promise<void>;
}

/** A lane that has not connected yet. */
export function openLane(
  settings: KafkaSettings,
  topic: string,
  partition: number,
  returns: Returns,
  hooks: PublisherHooks,
): Lane {
  let producer: PartitionProducer | undefined;
  let isRetrying = false;

  async function send(records: KafkaRecord[], signal: AbortSignal) {
    try {
      for (let attempt = 0; ; attempt += 1) {
        signal.throwIfAborted();
        if (await tryOnce(records, signal, attempt)) return;
      }
    } finally {
      isRetrying = false;
    }
  }

  /** One send, and the rest after it if it was in vain; both end when a broker is back, which may have lost the send. */
  async function tryOnce(records: KafkaRecord[], signal: AbortSignal, attempt: number): Promise<boolean> {
    const returned = new AbortController();
    const unwatch = returns.watch(() => returned.abort(new OperatingError("broker_returned")));
    const either = AbortSignal.any([signal, returned.signal]);
    try {
      const doubt = await trySend(records, either);
      if (doubt === undefined) return true;
      signal.throwIfAborted();
      isRetrying = true;
      hooks.onRetry?.(topic, doubt);
      await backOff(attempt, either);
      return false;
    } finally {
      unwatch();
    }
  }

  /** Returns the reason to try again, if any; throws when there is no point in it. */
  async function trySend(records: KafkaRecord[], signal: AbortSignal): Promise<string | undefined> {
    try {
      producer ??= await openProducer(settings, topic, partition, signal);
      const startedAtMs = performance.now();
      await producer.send(records, signal);
      hooks.onSend?.(topic, (performance.now() - startedAtMs) / 1_000);
      return undefined;
    } catch (error) {
      producer?.discard();
      producer = undefined;
      if (!(error instanceof OperatingError) || error.code === "record_rejected") throw error;
      return error.code;
    }
  }

  return { send, isRetrying: () => isRetrying, close: async () => producer?.close() };
}
