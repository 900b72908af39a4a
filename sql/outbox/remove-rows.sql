-- Takes rows $2 of shard $1 out of the outbox, if poller $3 still owns the shard in epoch $4; answers whether it does.
with lease as (
  select from shard_leases l where l.shard = $1 and l.owner = $3 and l.epoch = $4
), removed as (
  delete from outbox o where o.shard = $1 and o.id = any ($2::bigint[]) and exists (select from lease)
)
select exists (select from lease) as is_owner
