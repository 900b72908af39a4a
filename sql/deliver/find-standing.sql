-- Where a conversation stands, and whether a user is a member of it: one snapshot, two look-ups by key.
select c.last_sequence_number,
  exists (select from members b where b.conversation_id = c.id and b.user_id = $2) as is_member
from conversations c
where c.id = $1
