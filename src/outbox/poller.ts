// Rows of the outbox come in, records of the outbox topic leave. Ingest on this instance wakes the poller right
// after a commit; rows of other instances, and wakes that were lost, are found by asking which of its shards have
// rows: one query for all of them.
// Guaranteed: what drain.ts says of one shard, for every shard that some live poller may own.
import findShardsWithRowsSql from "../../sql/outbox/find-shards-with-rows.sql" with { type: "text" };
import type { Log } from "../platform/log.ts";
import { jittered, pause } from "../platform/pause.ts";
import type { Postgres } from "../platform/postgres.ts";
import type { Watchdogs } from "../platform/watchdog.ts";
import { type DrainTools, drainShard } from "./drain.ts";
import { keepLeases, type LeaseTimes, type ShardLease } from "./leases.ts";

export interface PollerOptions extends DrainTools {
  /** For renewals alone, which must not wait behind reads. */
  leasePostgres: Postgres;
  watchdogs: Watchdogs;
  report(system: "postgres" | "kafka", state: "up" | "degraded"): void;
  times?: PollerTimes;
}

/** In milliseconds. */
export interface PollerTimes extends LeaseTimes {
  pollIntervalMs: number;
  /** How long a shard, or the poll, rests after Postgres failed. */
  failurePauseMs: number;
}

export interface Poller {
  /** These shards may have new rows; those that are not its own are ignored. */
  wake(shards: readonly number[] | "all"): void;
  /** The shards that it owns now. */
  shards(): number[];
  /**
   * Takes nothing new, lets batches in flight end within `deadlineMs` and aborts the others, then gives the shards
   * back. Closes nothing that it was given.
   */
  stop(deadlineMs: number): Promise<void>;
}

/** A dead poller's shards are taken over within `leaseMs` and a renewal: less than 5 s. */
export const pollerTimes: PollerTimes = {
  leaseMs: 4_000,
  renewIntervalMs: 800,
  pollIntervalMs: 100,
  failurePauseMs: 1_000,
};

// Longer than a statement may take: beyond, a connection hangs without an error.
const silenceMaxMs = 15_000;

/** Starts to claim shards and to publish their rows. Returns at once, whatever is up. */
export function startPoller(options: PollerOptions): Poller {
  const { postgres, publisher, watchdogs, log, times = pollerTimes } = options;
  const stopping = new AbortController();
  const aborting = new AbortController();
  /** By shard: the drain that runs, one at a time. */
  const drains = new Map<number, { isWokenAgain: boolean; done: Promise<void> }>();

  const leases = keepLeases({
    postgres: options.leasePostgres,
    pollerId: options.pollerId,
    times,
    watchdog: watchdogs.watch(silenceMaxMs),
    onGain: (lease) => wakeShard(lease.shard),
    onRenew(failure) {
      if (failure !== undefined) log.warn({ err: failure }, "leases not renewed");
      options.report("postgres", failure === undefined ? "up" : "degraded");
      options.report("kafka", publisher.state());
    },
  });

  function wakeShard(shard: number) {
    const lease = leases.get(shard);
    if (lease === undefined || stopping.signal.aborted) return;
    const running = drains.get(shard);
    if (running) {
      running.isWokenAgain = true;
      return;
    }
    const drain = { isWokenAgain: false, done: Promise.resolve() };
    drains.set(shard, drain);
    drain.done = runDrain(lease).finally(() => {
      drains.delete(shard);
      if (drain.isWokenAgain) wakeShard(shard);
    });
  }

  async function runDrain(lease: ShardLease) {
    const watchdog = watchdogs.watch(silenceMaxMs);
    const signal = AbortSignal.any([lease.signal, aborting.signal]);
    try {
      await drainShard(options, { ...lease, signal }, watchdog, stopping.signal);
    } catch (error) {
      if (signal.aborted) return;
      log.warn({ err: error, shard: lease.shard }, "shard not drained");
      await watchdog.wait(pause(times.failurePauseMs, stopping.signal));
    } finally {
      watchdog.end();
    }
  }

  async function keepLooking() {
    const watchdog = watchdogs.watch(silenceMaxMs);
    while (!stopping.signal.aborted) {
      const isAnswered = await look();
      watchdog.beat();
      const restMs = isAnswered ? times.pollIntervalMs : times.failurePauseMs;
      await pause(jittered(restMs), stopping.signal);
    }
    watchdog.end();
  }

  async function look(): Promise<boolean> {
    const idle = [...leases.held()].map((lease) => lease.shard).filter((shard) => !drains.has(shard));
    if (idle.length === 0) return true;
    try {
      const found = await postgres.query<{ shard: number }>(findShardsWithRowsSql, [idle]);
      for (const { shard } of found) wakeShard(shard);
      return true;
    } catch (error) {
      log.warn({ err: error }, "outbox not read");
      return false;
    }
  }

  const looking = keepLooking();
  return {
    wake(shards) {
      for (const shard of shards === "all" ? heldShards() : shards) wakeShard(shard);
    },
    shards: heldShards,
    async stop(deadlineMs) {
      stopping.abort();
      const timer = setTimeout(() => aborting.abort(), deadlineMs);
      await Promise.all([looking, ...[...drains.values()].map((drain) => drain.done)]);
      clearTimeout(timer);
      await leases.release();
    },
  };

  function heldShards(): number[] {
    return [...leases.held()].map((lease) => lease.shard);
  }
}
