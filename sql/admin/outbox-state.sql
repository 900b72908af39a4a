-- What waits in the outbox, by shard. Scans the outbox, which is small while Kafka is up.
select l.shard, l.owner, l.epoch, coalesce(sum(cardinality(o.sequence_numbers)), 0)::bigint as pending_rows,
  coalesce(extract(epoch from clock_timestamp() - min(o.enqueued_at)), 0)::float8 as oldest_row_age_seconds
from shard_leases l left join outbox o on o.shard = l.shard
group by l.shard, l.owner, l.epoch order by l.shard
