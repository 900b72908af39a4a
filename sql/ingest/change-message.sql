-- Edits or deletes as a numbered event, in one commit; see change_message in the migrations.
select c.outcome, (c.stored).event, (c.stored).conversation_id, (c.stored).sequence_number,
  (c.stored).message_id, (c.stored).sender_id, (c.stored).payload, (c.stored).metadata,
  (c.stored).target_sequence_number, (c.stored).created_at
from change_message($1, $2, $3, $4, $5, $6) c
