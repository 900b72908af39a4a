-- Removes a member as a numbered event, in one commit; see the function in the migrations.
select c.outcome, (c.stored).event, (c.stored).conversation_id, (c.stored).sequence_number,
  (c.stored).message_id, (c.stored).sender_id, (c.stored).payload, (c.stored).metadata,
  (c.stored).target_sequence_number, (c.stored).created_at
from remove_member($1, $2, $3, $4, $5) c
