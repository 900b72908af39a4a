-- Sets the number of shards ($1) when nobody has yet, makes their lease rows if so, and answers the number that
-- holds. The update that changes nothing makes a concurrent first start wait for, and then see, the other's row.
with kept as (
  insert into settings (name, value) values ('shards', $1::integer::text)
  on conflict (name) do update set value = settings.value
  returning value::integer as shards
), made as (
  insert into shard_leases (shard)
  select generate_series(0, k.shards - 1) from kept k where k.shards = $1
  on conflict (shard) do nothing
)
select shards from kept
