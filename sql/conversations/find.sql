-- A conversation with its members, in the order in which they joined; `is_member` judges the caller. By primary keys.
select c.id, c.kind, c.channels, c.metadata, c.last_sequence_number, c.created_by, c.created_at,
  exists (select from members b where b.conversation_id = c.id and b.user_id = $2) as is_member,
  (select json_agg(json_build_object('user_id', b.user_id, 'role', b.role) order by b.joined_at, b.user_id)
   from members b where b.conversation_id = c.id) as members
from conversations c where c.id = $1
