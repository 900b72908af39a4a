// Which shards this poller may publish, as the database says and a monotonic clock confirms.
// Guaranteed: a lease's signal aborts as soon as the shard is known to be another's, and at the latest when the
// lease runs out by this thread's own clock, whatever the database does meanwhile.
import claimShardsSql from "../../sql/outbox/claim-shards.sql" with { type: "text" };
import releaseShardsSql from "../../sql/outbox/release-shards.sql" with { type: "text" };
import { OperatingError } from "../model/errors.ts";
import { jittered, pause } from "../platform/pause.ts";
import type { Postgres } from "../platform/postgres.ts";
import type { Watchdog } from "../platform/watchdog.ts";

/** The right to publish a shard; it is over when `signal` aborts, and a later one of the shard is another lease. */
export interface ShardLease {
  shard: number;
  epoch: number;
  signal: AbortSignal;
  /** False also when the lease ran out while this thread stood still, before its signal could abort. */
  isHeld(): boolean;
  /** The database said that it is another's. */
  lose(): void;
}

/** What leases are kept with, and who is told. */
export interface LeaseOptions {
  postgres: Postgres;
  pollerId: string;
  times: LeaseTimes;
  watchdog: Watchdog;
  onGain(shard: number): void;
  /** After each try to renew: what it failed with, or nothing. */
  onRenew(failure?: unknown): void;
}

/** In milliseconds. A dead poller's shards are others' after `leaseMs` and one renewal at most. */
export interface LeaseTimes {
  leaseMs: number;
  renewIntervalMs: number;
}

/** The leases of one poller. */
export interface Leases {
  /** The shards that it holds now. */
  shards(): number[];
  of(shard: number): ShardLease | undefined;
  /** Ends all leases here and claims no more; in the database they run out. */
  end(): void;
  /** Ends them here, and in the database so that others have them at once. */
  release(): Promise<void>;
}

interface HeldLease extends ShardLease {
  end(code: string): void;
}

/** Claims an even share of the shards, and keeps it until `end` or `release`. Returns at once. */
export function keepLeases(options: LeaseOptions): Leases {
  const { postgres, pollerId, times } = options;
  const leases = new Map<number, HeldLease>();
  const ending = new AbortController();
  let heldUntilMs = 0;
  let expiry: Timer | undefined;

  async function keepRenewing() {
    while (!ending.signal.aborted) {
      options.onRenew(await renew());
      options.watchdog.beat();
      await pause(jittered(times.renewIntervalMs), ending.signal);
    }
    options.watchdog.end();
  }

  /** Answers what it failed with, or nothing. */
  async function renew(): Promise<unknown> {
    const askedAtMs = performance.now();
    try {
      const owned = await postgres.query<OwnedShard>(claimShardsSql, [pollerId, times.leaseMs]);
      if (ending.signal.aborted) return undefined;
      // The database counts from when it was asked or later, so this clock's lease ends first.
      heldUntilMs = askedAtMs + times.leaseMs;
      clearTimeout(expiry);
      expiry = setTimeout(() => endAll("lease_expired"), heldUntilMs - performance.now());
      apply(owned);
      return undefined;
    } catch (error) {
      return error;
    }
  }

  function apply(owned: OwnedShard[]) {
    const epochs = new Map(owned.map(({ shard, epoch }) => [shard, epoch]));
    for (const lease of leases.values()) {
      if (epochs.get(lease.shard) !== lease.epoch) lease.lose();
    }
    for (const { shard, epoch } of owned) {
      if (leases.has(shard)) continue;
      leases.set(shard, openLease(shard, epoch, isInTime, forget));
      options.onGain(shard);
    }
  }

  const isInTime = () => performance.now() < heldUntilMs;
  const forget = (lease: HeldLease) => {
    if (leases.get(lease.shard) === lease) leases.delete(lease.shard);
  };

  function endAll(code: string) {
    for (const lease of leases.values()) lease.end(code);
  }

  function end() {
    ending.abort();
    clearTimeout(expiry);
    endAll("lease_released");
  }

  const renewing = keepRenewing();
  return {
    shards: () => [...leases.keys()],
    of: (shard) => leases.get(shard),
    end,
    async release() {
      end();
      await renewing;
      await postgres.query(releaseShardsSql, [pollerId]);
    },
  };
}

function openLease(
  shard: number,
  epoch: number,
  isInTime: () => boolean,
  onOver: (lease: HeldLease) => void,
): HeldLease {
  const over = new AbortController();
  const lease: HeldLease = {
    shard,
    epoch,
    signal: over.signal,
    isHeld: () => !over.signal.aborted && isInTime(),
    lose: () => lease.end("lease_lost"),
    end(code) {
      onOver(lease);
      over.abort(new OperatingError(code));
    },
  };
  return lease;
}

interface OwnedShard {
  shard: number;
  epoch: number;
}
