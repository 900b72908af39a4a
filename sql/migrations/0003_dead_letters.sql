-- What the stages could not pass leaves the walk in one commit, so that it is never both parked and under way.

-- Parks one message of an outbox row and takes it out of the row, which goes with its last message. Answers false,
-- and changes nothing, when the row or the message in it is gone. The row's lock keeps two from parking it at once.
create function park_outbox_record(
  p_shard smallint,
  p_row_id bigint,
  p_conversation_id uuid,
  p_sequence_number bigint,
  p_reason text,
  p_tries integer,
  p_record json
) returns boolean
language plpgsql as $$
declare
  v_row outbox;
  v_position integer;
begin
  select * into v_row from outbox o where o.shard = p_shard and o.id = p_row_id for update;
  select u.ord into v_position
  from unnest(v_row.conversation_ids, v_row.sequence_numbers) with ordinality
    as u(conversation_id, sequence_number, ord)
  where u.conversation_id = p_conversation_id and u.sequence_number = p_sequence_number;
  if not found then return false; end if;

  insert into dead_letters (stage, conversation_id, sequence_number, reason, tries, record)
  values ('outbox', p_conversation_id, p_sequence_number, p_reason, p_tries, p_record);

  if cardinality(v_row.conversation_ids) = 1 then
    delete from outbox o where o.shard = p_shard and o.id = p_row_id;
  else
    update outbox o
    set conversation_ids = v_row.conversation_ids[:v_position - 1] || v_row.conversation_ids[v_position + 1:],
        sequence_numbers = v_row.sequence_numbers[:v_position - 1] || v_row.sequence_numbers[v_position + 1:],
        traceparents = v_row.traceparents[:v_position - 1] || v_row.traceparents[v_position + 1:]
    where o.shard = p_shard and o.id = p_row_id;
  end if;
  return true;
end $$;
