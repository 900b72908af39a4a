// One drain for each shard at a time: a wake starts it, or makes one that runs look once more when it is done.
import { type Holds, openHolds } from "../platform/holds.ts";
import { pause } from "../platform/pause.ts";
import type { Watchdogs } from "../platform/watchdog.ts";
import { drainShard } from "./drain.ts";
import type { DrainTools } from "./drain-batch.ts";
import type { ShardLease } from "./leases.ts";

/** What the drains of a poller work with. */
export interface DrainsOptions extends DrainTools {
  watchdogs: Watchdogs;
  /** The lease of a shard, if it is this poller's. */
  leaseOf(shard: number): ShardLease | undefined;
  /** Begins the end: no new drain, and those that run end with the batch in hand. */
  stopping: AbortSignal;
  /** How long a shard rests after Postgres failed. */
  failurePauseMs: number;
}

/** The drains of one poller. */
export interface Drains {
  /** The shard may have new rows. */
  wake(shard: number): void;
  isRunning(shard: number): boolean;
  /** Resolves when none runs. */
  settled(): Promise<unknown>;
}

/** Longer than a statement may take: beyond, a connection hangs without an error. */
export const silenceMaxMs = 15_000;

/** Conversations of a shard that may be held back at once; beyond, the shard waits for one of them. */
const heldConversationsMax = 100;

/** Drains that begin with the first wake. */
export function openDrains(options: DrainsOptions): Drains {
  const { watchdogs, stopping, log } = options;
  const running = new Map<number, { isWokenAgain: boolean; done: Promise<void> }>();
  const holdsOf = new WeakMap<ShardLease, Holds>();
  const timers = new Map<number, Timer>();

  function wake(shard: number) {
    const lease = options.leaseOf(shard);
    if (lease === undefined || stopping.aborted) return;
    const current = running.get(shard);
    if (current) {
      current.isWokenAgain = true;
      return;
    }
    const drain = { isWokenAgain: false, done: Promise.resolve() };
    running.set(shard, drain);
    drain.done = run(lease).finally(() => {
      running.delete(shard);
      if (drain.isWokenAgain) wake(shard);
    });
  }

  async function run(lease: ShardLease) {
    const watchdog = watchdogs.watch(silenceMaxMs);
    const holds = holdsOf.get(lease) ?? openHolds(heldConversationsMax);
    holdsOf.set(lease, holds);
    try {
      await drainShard(options, lease, holds, watchdog, stopping);
      wakeFor(lease.shard, holds);
    } catch (error) {
      if (lease.signal.aborted) return;
      log.warn({ err: error, shard: lease.shard }, "shard not drained");
      await watchdog.wait(pause(options.failurePauseMs, stopping));
    } finally {
      watchdog.end();
    }
  }

  /** Looks again when a held conversation's pause is over. */
  function wakeFor(shard: number, holds: Holds) {
    clearTimeout(timers.get(shard));
    const nextTryMs = holds.nextTryMs();
    if (nextTryMs !== undefined) timers.set(shard, setTimeout(wake, nextTryMs, shard));
  }

  return {
    wake,
    isRunning: (shard) => running.has(shard),
    settled: () => Promise.all([...running.values()].map((drain) => drain.done)),
  };
}
