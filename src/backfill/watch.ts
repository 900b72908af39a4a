// Tells when Redis came back, and whether it came back empty: a key that holds an epoch vanishes with all the others.
import { pause } from "../platform/pause.ts";
import type { Redis } from "../platform/redis.ts";
import type { Watchdog } from "../platform/watchdog.ts";

/** How Redis came back. */
export interface Return {
  /** When it was last known to be there; null when it was never away as far as this instance saw. */
  awaySince: Date | null;
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
  let awaySince: Date | null = null;
  let lastSeenAt = new Date();
  // Also an absence between two looks counts; one late answer does not, since a return costs a scan of Postgres.
  redis.onStateChange((state) => {
    if (state === "degraded") awaySince ??= lastSeenAt;
  });
  for (let waitedMs = 0; waitedMs < startMaxMs && redis.state() !== "up"; waitedMs += startStepMs) {
    await pause(startStepMs, stopping);
  }
  while (!stopping.aborted) {
    watchdog.beat();
    const lookedAt = new Date();
    const epoch = await redis.get(epochKey).catch(() => undefined);
    if (redis.state() !== "up") {
      awaySince ??= lastSeenAt;
      onState("degraded");
    } else if (epoch !== undefined) {
      onState("up");
      lastSeenAt = lookedAt;
      const isEmpty = epoch === null;
      if (awaySince !== null || isEmpty) {
        const found: Return = { awaySince, isEmpty };
        awaySince = null;
        if (!(await watchdog.wait(settle(found)))) awaySince = found.awaySince ?? awaySince;
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
