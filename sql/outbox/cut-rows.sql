-- Takes messages out of rows of shard $1 of which others wait, each by row ($2), conversation ($3) and number ($4), if
-- poller $5 still owns the shard in epoch $6; answers whether it does.
select cut_outbox_rows($1, $2::bigint[], $3::uuid[], $4::bigint[], $5, $6) as is_owner
