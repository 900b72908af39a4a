-- Leases and pollers go by the database's clock, which may jump back: an expiry that lies further ahead than one lease
-- is of before the jump, and counts as over. Else a dead poller's shards would wait for as long as the clock jumped.
create or replace function claim_shards(p_poller_id uuid, p_lease_ms integer)
returns table (shard smallint, epoch bigint)
language plpgsql as $$
#variable_conflict use_column
declare
  v_lease interval := p_lease_ms * interval '1 millisecond';
  v_now timestamptz;
  v_share integer;
begin
  perform pg_advisory_xact_lock(hashtext('chat4all.claim_shards'));
  -- Only now: no lease that another poller was given while this one waited is further ahead.
  v_now := clock_timestamp();
  insert into pollers (id, expires_at) values (p_poller_id, v_now + v_lease)
  on conflict (id) do update set expires_at = excluded.expires_at;
  delete from pollers p where p.expires_at <= v_now or p.expires_at > v_now + v_lease;

  update shard_leases l set owner = null, expires_at = '-infinity'
  where l.owner is not null and (l.expires_at <= v_now or l.expires_at > v_now + v_lease);

  select ceil((select count(*) from shard_leases)::numeric / (select count(*) from pollers)) into v_share;

  update shard_leases l set expires_at = v_now + v_lease where l.owner = p_poller_id;

  update shard_leases l set owner = null, expires_at = '-infinity'
  where l.shard in (select o.shard from shard_leases o where o.owner = p_poller_id
                    order by o.shard offset v_share);

  update shard_leases l set owner = p_poller_id, epoch = l.epoch + 1, expires_at = v_now + v_lease
  where l.shard in (
    select f.shard from shard_leases f where f.owner is null
    order by f.shard
    limit greatest(0, v_share - (select count(*) from shard_leases o where o.owner = p_poller_id)));

  return query select l.shard, l.epoch from shard_leases l where l.owner = p_poller_id order by l.shard;
end $$;
