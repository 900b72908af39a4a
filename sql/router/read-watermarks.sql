-- The watermarks of conversations $1, of those that have one.
select conversation_id, sequence_number from routed where conversation_id = any ($1::uuid[])
