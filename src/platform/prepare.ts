// What a worker waits for before its loops begin: systems that may be away for now, but must be as expected.
import { OperatingError } from "../model/errors.ts";
import { ensureTopics, type KafkaSettings, type TopicSettings } from "./kafka.ts";
import { pause } from "./pause.ts";
import { isConnectionFailure } from "./postgres.ts";

const retryIntervalMs = 500;

/**
 * Resolves when `prepare`, which uses Postgres, has; or when `signal` aborts. While Postgres is away it tries
 * again. Rejects with any other error of `prepare`.
 */
export function untilPostgresHas(prepare: () => Promise<void>, signal: AbortSignal): Promise<void> {
  return untilDone(prepare, isConnectionFailure, signal);
}

/** The same for topics. Rejects with the OperatingError `topic_partitions_mismatch`. */
export function untilTopicsExist(
  settings: KafkaSettings,
  topics: TopicSettings[],
  signal: AbortSignal,
): Promise<void> {
  const isAway = (error: unknown) => error instanceof OperatingError && error.code === "kafka_unavailable";
  return untilDone(() => ensureTopics(settings, topics), isAway, signal);
}

async function untilDone(
  prepare: () => Promise<void>,
  isAway: (error: unknown) => boolean,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    try {
      return await prepare();
    } catch (error) {
      if (!isAway(error)) throw error;
      await pause(retryIntervalMs, signal);
    }
  }
}
