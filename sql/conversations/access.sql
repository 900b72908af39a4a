-- Whether the conversation exists, how far it is, and whether the caller is a member. By primary keys.
select c.last_sequence_number,
  exists (select from members b where b.conversation_id = c.id and b.user_id = $2) as is_member
from conversations c where c.id = $1
