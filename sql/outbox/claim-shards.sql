-- Renews what the poller ($1) owns for another $2 milliseconds and evens out the shares; answers what it owns now.
select shard, epoch from claim_shards($1, $2)
