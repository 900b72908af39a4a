-- One event as it now stands, with its state: what is not in the outbox any more is published, what the router's
-- watermark covers is delivered. A message finds its outbox row by time (outbox_by_time): both have the same.
select m.event, m.conversation_id, m.sequence_number, m.message_id, m.sender_id, m.metadata,
  case when m.target_sequence_number is null or t.deleted_by is null then coalesce(e.payload, m.payload) end as payload,
  m.target_sequence_number, m.created_at, e.created_at as edited_at, d.created_at as deleted_at,
  case
    when exists (select from dead_letters l where l.conversation_id = m.conversation_id
      and l.sequence_number = m.sequence_number and l.replayed_at is null) then 'failed'
    when exists (select from routed r where r.conversation_id = m.conversation_id
      and r.sequence_number >= m.sequence_number) then 'delivered'
    when exists (select from outbox o where o.shard = c.shard and o.enqueued_at = m.created_at
      and (m.conversation_id, m.sequence_number) in
        (select u.c, u.n from unnest(o.conversation_ids, o.sequence_numbers) as u(c, n))) then 'enqueued'
    else 'published'
  end as state,
  (select json_agg(json_build_object('user_id', b.user_id, 'delivered', b.delivered >= m.sequence_number,
     'read', b.read >= m.sequence_number) order by b.joined_at, b.user_id)
   from members b where b.conversation_id = m.conversation_id) as members
from conversations c
join messages m on m.conversation_id = c.id and m.sequence_number = $2
left join messages e on e.conversation_id = m.conversation_id and e.sequence_number = m.edited_by
left join messages d on d.conversation_id = m.conversation_id and d.sequence_number = m.deleted_by
left join messages t on t.conversation_id = m.conversation_id and t.sequence_number = m.target_sequence_number
where c.id = $1
