// Tells when Redis came back, and whether it came back empty: a key that holds an epoch vanishes with all the others.
import { pause } from "../platform/pause.ts";
import type { Redis } from "../platform/redis.ts";
import type { Watchdog } from "../platform/watchdog.ts";

/** How Redis came back. */
export interface Return {
  /** When it was last known to be there, by this thread's monotonic clock; null: never away as far as it saw. */
  awaySinceMs: number | null;
  isEmpty: boolean;
}

/** What watching needs. */
export interface WatchOptions {
  redis: Redis;
  watchdog: Watchdog;
  stopping: AbortSignal;
  /** Puts right what the return asks for; a rejection lets the same return come again. */
  onReturn(found: Return): Promise<void>;
  onState(state: "up" | "degraded"): void;
}

const intervalMs = 250;
/** A connection that is still being made is no absence. */
const startMaxMs = 1000;
const startStepMs = 20;
const epochKey = "epoch";
const epochLifetimeMs = 30 * 86_400_000;

/** Looks four times a second until it is told to stop. Never rejects. */
export async function watchRedis({
  redis,
  watchdog,
  stopping,
  onReturn,
  onState,
}: WatchOptions): Promise<void> {
  let awaySinceMs: number | null = null;
  let lastSeenAtMs = performance.now();
  // Also an absence between two looks counts; one late answer does not, since a return costs a scan of Postgres.
  redis.onStateChange((state) => {
    if (state === "degraded") awaySinceMs ??= lastSeenAtMs;
  });
  for (let waitedMs = 0; waitedMs < startMaxMs && redis.state() !== "up"; waitedMs += startStepMs) {
    await pause(startStepMs, stopping);
  }
  while (!stopping.aborted) {
    watchdog.beat();
    const lookedAtMs = performance.now();
    const epoch = await redis.get(epochKey).catch(() => undefined);
    if (redis.state() !== "up") {
      awaySinceMs ??= lastSeenAtMs;
      onState("degraded");
    } else if (epoch !== undefined) {
      onState("up");
      lastSeenAtMs = lookedAtMs;
      const isEmpty = epoch === null;
      if (awaySinceMs !== null || isEmpty) {
        const found: Return = { awaySinceMs, isEmpty };
        awaySinceMs = null;
        if (!(await watchdog.wait(settle(found)))) awaySinceMs = found.awaySinceMs ?? awaySinceMs;
      }
    }
    await pause(intervalMs, stopping);
  }

  async function settle(found: Return): Promise<boolean> {
    try {
      await onReturn(found);
      // The epoch comes last: whoever fails before it leaves the return for another try, or another instance.
      if (found.isEmpty) await redis.set(epochKey, crypto.randomUUID(), epochLifetimeMs);
      return true;
    } catch {
      return false;
    }
  }
}
