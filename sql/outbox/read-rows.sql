-- The oldest rows of shard $1 with their messages: at most $2 rows, and rows of at most $3 bytes but at least one.
-- Messages of the conversations $4 are left out, and rows that have no others are passed over.
-- Ids of a conversation's rows rise with its numbers, since they are taken under its lock; so what is visible
-- in the order of id is in the order of numbers. Half a KiB stands for each record's envelope and headers.
-- Each message is one probe of its primary key.
with oldest as materialized (
  select o.id, o.conversation_ids, o.sequence_numbers, o.traceparents, o.dead_letter_id,
    sum(o.payload_bytes + 512 * cardinality(o.sequence_numbers)) over (order by o.id) as bytes,
    row_number() over (order by o.id) as position
  from (
    select * from outbox o
    where o.shard = $1 and not (o.conversation_ids <@ $4::uuid[])
    order by o.id limit $2
  ) o
)
select o.id as row_id, m.event, m.conversation_id, m.sequence_number, m.message_id, m.sender_id, m.payload,
  m.metadata, m.target_sequence_number, m.created_at, u.traceparent, c.channels, o.dead_letter_id
from oldest o
cross join lateral unnest(o.conversation_ids, o.sequence_numbers, o.traceparents) with ordinality
  as u(conversation_id, sequence_number, traceparent, ord)
join messages m on m.conversation_id = u.conversation_id and m.sequence_number = u.sequence_number
join conversations c on c.id = u.conversation_id
where (o.position = 1 or o.bytes <= $3) and u.conversation_id <> all ($4::uuid[])
order by o.id, u.ord
