-- Of the shards $1, those that have rows: one probe of the primary key for each, however long the outbox is.
select s.shard from unnest($1::smallint[]) as s(shard)
where exists (select from outbox o where o.shard = s.shard)
