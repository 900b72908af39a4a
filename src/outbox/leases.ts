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
}

export interface LeaseOptions {
  /** Its statements must end sooner than a lease: see leaseTimes. */
  postgres: Postgres;
  pollerId: string;
  times: LeaseTimes;
  watchdog: Watchdog;
  onGain(lease: ShardLease): void;
  /** After each try to renew: what it failed with, or nothing. */
  onRenew(failure?: unknown): void;
  /** A monotonic clock in milliseconds. */
  now?: () => number;
}

/** In milliseconds. A dead poller's shards are others' after `leaseMs` and one renewal at most. */
export interface LeaseTimes {
  leaseMs: number;
  renewIntervalMs: number;
}

export interface Leases {
  held(): Iterable<ShardLease>;
  get(shard: number): ShardLease | undefined;
  /** Ends all leases here, and then in the database so that others have them at once. */
  release(): Promise<void>;
}

/** Claims an even share of the shards, and keeps it until `release`. Returns at once. */
export function keepLeases(options: LeaseOptions): Leases {
  const { postgres, pollerId, times, now = () => performance.now() } = options;
  const leases = new Map<number, ShardLease & { end: AbortController }>();
  const releasing = new AbortController();
  let heldUntilMs = 0;
  let expiry: Timer | undefined;

  async function keepRenewing() {
    while (!releasing.signal.aborted) {
      await renew();
      options.watchdog.beat();
      await pause(jittered(times.renewIntervalMs), releasing.signal);
    }
  }

  async function renew() {
    const askedAtMs = now();
    try {
      const owned = await postgres.query<{ shard: number; epoch: number }>(claimShardsSql, [
        pollerId,
        times.leaseMs,
      ]);
      if (releasing.signal.aborted) return;
      // The database counts from when it was asked or later, so this clock's lease ends first.
      heldUntilMs = askedAtMs + times.leaseMs;
      clearTimeout(expiry);
      expiry = setTimeout(() => endAll("lease_expired"), heldUntilMs - now());
      apply(owned);
      options.onRenew();
    } catch (error) {
      options.onRenew(error);
    }
  }

  function apply(owned: { shard: number; epoch: number }[]) {
    const epochs = new Map(owned.map(({ shard, epoch }) => [shard, epoch]));
    for (const lease of leases.values()) {
      if (epochs.get(lease.shard) !== lease.epoch) endLease(lease, "lease_lost");
    }
    for (const { shard, epoch } of owned) {
      if (leases.has(shard)) continue;
      const end = new AbortController();
      const isHeld = () => !end.signal.aborted && now() < heldUntilMs;
      const lease = { shard, epoch, end, signal: end.signal, isHeld };
      leases.set(shard, lease);
      options.onGain(lease);
    }
  }

  function endLease(lease: ShardLease & { end: AbortController }, code: string) {
    leases.delete(lease.shard);
    lease.end.abort(new OperatingError(code));
  }

  function endAll(code: string) {
    for (const lease of leases.values()) endLease(lease, code);
  }

  const renewing = keepRenewing();
  return {
    held: () => leases.values(),
    get: (shard) => leases.get(shard),
    async release() {
      releasing.abort();
      await renewing;
      clearTimeout(expiry);
      endAll("lease_released");
      options.watchdog.end();
      await postgres.query(releaseShardsSql, [pollerId]);
    },
  };
}
