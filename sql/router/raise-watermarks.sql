-- Raises the watermarks of conversations $1 to the numbers $2, each conversation once; none ever falls. In the
-- order of id, so that two routers cannot deadlock.
insert into routed (conversation_id, sequence_number)
select u.conversation_id, u.sequence_number
from unnest($1::uuid[], $2::bigint[]) as u(conversation_id, sequence_number)
order by u.conversation_id
on conflict (conversation_id) do update
set sequence_number = excluded.sequence_number
where routed.sequence_number < excluded.sequence_number
