-- What one message writes, one row a transaction, as one prepared statement: number, message, outbox row.
\set conversation random(1, 10000)
with counted as (
  update conversations
  set last_sequence_number = last_sequence_number + 1, last_event_at = clock_timestamp()
  where id = md5('conversation ' || :conversation)::uuid
  returning id, shard, last_sequence_number, last_event_at
), stored as (
  insert into messages (conversation_id, sequence_number, event, message_id, idempotency_key, sender_id, payload,
    created_at)
  select c.id, c.last_sequence_number, 'message.created', k, k, 'alice',
    '{"type":"text","text":"0123456789012345678901234567890123456789"}', c.last_event_at
  from counted c, gen_random_uuid() k
)
insert into outbox (shard, conversation_ids, sequence_numbers, traceparents, payload_bytes, enqueued_at)
select c.shard, array[c.id], array[c.last_sequence_number],
  array['00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'], 68, c.last_event_at
from counted c;
