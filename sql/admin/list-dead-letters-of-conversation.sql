-- Dead letters of conversation $6, otherwise as list-dead-letters.sql; dead_letters_by_conversation has their order.
select l.id, l.stage, l.conversation_id, l.sequence_number, l.reason, l.tries, l.parked_at,
  l.replay_requested_at, l.replayed_at
from dead_letters l
where l.conversation_id = $6::uuid and (l.parked_at, l.id) < ($3::timestamptz, $4::uuid)
  and (($1::boolean and l.replayed_at is null) or ($2::boolean and l.replayed_at is not null))
order by l.parked_at desc, l.id desc limit $5
