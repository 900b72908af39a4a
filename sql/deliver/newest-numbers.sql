-- The newest number of each of these conversations, by primary key. Callers pass at most 1,000.
select id, last_sequence_number from conversations where id = any ($1::uuid[])
