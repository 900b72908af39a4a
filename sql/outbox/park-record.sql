-- Parks message $3:$4 of row $2 in shard $1 as a dead letter, with the reason $5, the tries $6 and the record $7; the
-- rest of the row stays. No fence: a message that another owner parked or published is no longer in its row.
select park_outbox_record($1, $2, $3, $4, $5, $6, $7::json) as is_parked
