// Rows of the outbox come in, records of the outbox topic leave. Ingest on this instance wakes the poller right
// after a commit; rows of other instances, and wakes that were lost, are found by asking which of its shards have
// rows: one query for all of them.
// Guaranteed: what drain.ts says of one shard, for every shard, as long as some poller lives.
import findShardsWithRowsSql from "../../sql/outbox/find-shards-with-rows.sql" with { type: "text" };
import { jittered, pause } from "../platform/pause.ts";
import type { Postgres } from "../platform/postgres.ts";
import type { Watchdogs } from "../platform/watchdog.ts";
import type { DrainTools } from "./drain-batch.ts";
import { openDrains, silenceMaxMs } from "./drains.ts";
import { keepLeases, type LeaseTimes } from "./leases.ts";

/** What a poller works with; whoever opened it closes it. */
export interface PollerOptions extends DrainTools {
  /** For renewals alone, which must not wait behind reads; its statements end sooner than a lease. */
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

/** A poller while it runs. */
export interface Poller {
  /** These shards may have new rows; those that are not its own are ignored. */
  wake(shards: readonly number[] | "all"): void;
  /** The shards that it owns now. */
  shards(): number[];
  /**
   * Takes nothing new, lets batches in hand end within `deadlineMs` and aborts the others, then gives the shards
   * back. Closes nothing that it was given.
   */
  stop(deadlineMs: number): Promise<void>;
}

/** A dead poller's shards are taken over within `leaseMs` and a renewal: less than 5 s. */
export const pollerTimes: PollerTimes = {
  leaseMs: 4_000,
  renewIntervalMs: 500,
  pollIntervalMs: 100,
  failurePauseMs: 500,
};

/** Starts to claim shards and to publish their rows. Returns at once, whatever is up. */
export function startPoller(options: PollerOptions): Poller {
  const { postgres, publisher, watchdogs, log, report, times = pollerTimes } = options;
  const stopping = new AbortController();
  let isRenewed = true;
  const leases = keepLeases({
    postgres: options.leasePostgres,
    pollerId: options.pollerId,
    times,
    watchdog: watchdogs.watch(silenceMaxMs),
    onGain: (shard) => drains.wake(shard),
    onRenew(failure) {
      if (failure !== undefined && isRenewed) log.warn({ err: failure }, "leases not renewed");
      isRenewed = failure === undefined;
      report("postgres", isRenewed ? "up" : "degraded");
      report("kafka", publisher.state());
    },
  });
  const drains = openDrains({
    ...options,
    leaseOf: leases.of,
    stopping: stopping.signal,
    failurePauseMs: times.failurePauseMs,
  });

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
    const idle = leases.shards().filter((shard) => !drains.isRunning(shard));
    if (idle.length === 0) return true;
    try {
      const found = await postgres.query<{ shard: number }>(findShardsWithRowsSql, [idle]);
      for (const { shard } of found) drains.wake(shard);
      return true;
    } catch {
      // The renewals fail, too, and tell.
      return false;
    }
  }

  const looking = keepLooking();
  return {
    wake(shards) {
      for (const shard of shards === "all" ? leases.shards() : shards) drains.wake(shard);
    },
    shards: leases.shards,
    async stop(deadlineMs) {
      stopping.abort();
      const timer = setTimeout(leases.end, deadlineMs);
      await Promise.all([looking, drains.settled()]);
      clearTimeout(timer);
      await leases.release();
    },
  };
}
