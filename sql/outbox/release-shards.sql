-- Gives all shards of the poller ($1) back at once.
select release_shards($1)
