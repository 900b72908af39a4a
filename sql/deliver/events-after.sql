-- The next events of a conversation after a number, in order: at most 500, and about 1 MiB (but always one).
-- Range scan of the primary key; no lock. Commits of a conversation are in the order of numbers, so what is
-- seen has no gap.
select event, conversation_id, sequence_number, message_id, sender_id, payload, metadata,
  target_sequence_number, created_at
from (
  select page.*,
    sum(octet_length(payload::text) + coalesce(octet_length(metadata::text), 0))
      over (order by sequence_number rows between unbounded preceding and 1 preceding) as bytes_before
  from (
    select * from messages
    where conversation_id = $1 and sequence_number > $2
    order by sequence_number
    limit 500
  ) page
) sized
where coalesce(bytes_before, 0) < 1048576
order by sequence_number
