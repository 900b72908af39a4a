-- Parks message $3:$4 of row $2 in shard $1 as a dead letter, if poller $5 still owns the shard in epoch $6, with the
-- reason $7, the tries $8 and the record $9; the rest of the row stays. Answers whether it owns the shard.
select park_outbox_record($1, $2, $3, $4, $5, $6, $7, $8, $9::text::json) as is_owner
