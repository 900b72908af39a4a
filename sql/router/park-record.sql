-- Parks a record ($5) as a dead letter, with its conversation and number ($1, $2) if they are known, the reason $3 and
-- the tries $4. Its id follows from the record, which says where it was read, so that a repeat is not parked again.
insert into dead_letters (id, stage, conversation_id, sequence_number, reason, tries, record)
values (md5($5)::uuid, 'router', $1, $2, $3, $4, $5::text::json)
on conflict (id) do nothing
