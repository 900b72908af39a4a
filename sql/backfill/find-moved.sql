-- The conversations that moved since a time, latest first, at most so many. A scan of all conversations, on purpose:
-- an index on what every message changes would cost each of them, and this is asked only when Redis comes back.
select id, last_sequence_number
from conversations
where last_event_at >= $1 and last_sequence_number > 0
order by last_event_at desc
limit $2
