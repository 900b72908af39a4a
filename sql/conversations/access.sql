-- Whether the conversation exists, how far it is, and whether a user is a member of it. By primary keys,
-- in one snapshot.
select c.last_sequence_number,
  exists (select from members b where b.conversation_id = c.id and b.user_id = $2) as is_member
from conversations c where c.id = $1
