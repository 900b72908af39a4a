-- The messages $1:$2 are on their topics: closes their open letters (dead_letters_by_message).
update dead_letters l set replayed_at = now(), replay_requested_at = null
from unnest($1::uuid[], $2::bigint[]) as u(conversation_id, sequence_number)
where l.conversation_id = u.conversation_id and l.sequence_number = u.sequence_number and l.replayed_at is null
