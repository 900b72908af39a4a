-- Events after a number, ascending, created messages as they now stand. By primary key, and by it again for edits.
select m.event, m.conversation_id, m.sequence_number, m.message_id, m.sender_id, m.metadata,
  case when m.target_sequence_number is null or t.deleted_by is null then coalesce(e.payload, m.payload) end as payload,
  m.target_sequence_number, m.created_at, e.created_at as edited_at, d.created_at as deleted_at
from messages m
left join messages e on e.conversation_id = m.conversation_id and e.sequence_number = m.edited_by
left join messages d on d.conversation_id = m.conversation_id and d.sequence_number = m.deleted_by
left join messages t on t.conversation_id = m.conversation_id and t.sequence_number = m.target_sequence_number
where m.conversation_id = $1 and m.sequence_number > $2
order by m.sequence_number limit $3
