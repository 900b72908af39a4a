-- The conversations that moved within the last $1 milliseconds, latest first, at most so many. By the database's own
-- clock, which also timed the events. A scan of all conversations, on purpose:
-- an index on what every message changes would cost each of them, and this is asked only when Redis comes back.
select id, last_sequence_number
from conversations
where last_event_at >= clock_timestamp() - $1::bigint * interval '1 millisecond' and last_sequence_number > 0
order by last_event_at desc
limit $2
