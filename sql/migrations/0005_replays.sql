-- Rows of which a part waits, and dead letters that go their way again.

-- A replay is a row of its own with one message; it names the letter, in the outbox and on the topics.
alter table outbox add column dead_letter_id uuid;
create index outbox_replays on outbox (dead_letter_id) where dead_letter_id is not null;

-- Set while a letter is on its way again.
alter table dead_letters add column replay_requested_at timestamptz(3);

-- For lists, newest first: of those that are open, those that are not, and of one conversation.
create index dead_letters_open on dead_letters (parked_at, id) where replayed_at is null;
create index dead_letters_replayed on dead_letters (parked_at, id) where replayed_at is not null;
create index dead_letters_by_conversation on dead_letters (conversation_id, parked_at, id);

-- Whether this poller owns the shard. It stays so until the transaction ends: whoever wants the lease waits.
create function owns_shard(p_shard smallint, p_poller_id uuid, p_epoch bigint) returns boolean
language plpgsql as $$
begin
  perform from shard_leases l
  where l.shard = p_shard and l.owner = p_poller_id and l.epoch = p_epoch for share;
  return found;
end $$;

-- Takes messages out of their outbox rows, each named by row, conversation and number; a row goes with its last
-- message. Answers false, and changes nothing, when the poller does not own the shard any more.
create function cut_outbox_rows(
  p_shard smallint,
  p_row_ids bigint[],
  p_conversation_ids uuid[],
  p_sequence_numbers bigint[],
  p_poller_id uuid,
  p_epoch bigint
) returns boolean
language plpgsql as $$
begin
  if not owns_shard(p_shard, p_poller_id, p_epoch) then return false; end if;

  with kept as (
    select o.id,
      array_agg(u.conversation_id order by u.ord) filter (where g.row_id is null) as conversation_ids,
      array_agg(u.sequence_number order by u.ord) filter (where g.row_id is null) as sequence_numbers,
      array_agg(u.traceparent order by u.ord) filter (where g.row_id is null) as traceparents
    from outbox o
    cross join lateral unnest(o.conversation_ids, o.sequence_numbers, o.traceparents) with ordinality
      as u(conversation_id, sequence_number, traceparent, ord)
    left join unnest(p_row_ids, p_conversation_ids, p_sequence_numbers)
      as g(row_id, conversation_id, sequence_number)
      on g.row_id = o.id and g.conversation_id = u.conversation_id and g.sequence_number = u.sequence_number
    where o.shard = p_shard and o.id = any (p_row_ids)
    group by o.id
  ), cut as (
    update outbox o
    set conversation_ids = k.conversation_ids, sequence_numbers = k.sequence_numbers, traceparents = k.traceparents
    from kept k
    where o.shard = p_shard and o.id = k.id and k.conversation_ids is not null
  )
  delete from outbox o using kept k
  where o.shard = p_shard and o.id = k.id and k.conversation_ids is null;
  return true;
end $$;

-- Parks one message of an outbox row and takes it out of the row, in one commit, so that it is never both parked and
-- under way. A replay is no second letter: its own is told the tries and the reason. Answers as cut_outbox_rows.
drop function park_outbox_record(smallint, bigint, uuid, bigint, text, integer, json);
create function park_outbox_record(
  p_shard smallint,
  p_row_id bigint,
  p_conversation_id uuid,
  p_sequence_number bigint,
  p_poller_id uuid,
  p_epoch bigint,
  p_reason text,
  p_tries integer,
  p_record json
) returns boolean
language plpgsql as $$
declare
  v_letter_id uuid;
begin
  if not owns_shard(p_shard, p_poller_id, p_epoch) then return false; end if;
  select o.dead_letter_id into v_letter_id from outbox o
  where o.shard = p_shard and o.id = p_row_id
    and (p_conversation_id, p_sequence_number) in
      (select u.c, u.n from unnest(o.conversation_ids, o.sequence_numbers) as u(c, n));
  if not found then return true; end if;

  if v_letter_id is null then
    insert into dead_letters (stage, conversation_id, sequence_number, reason, tries, record)
    values ('outbox', p_conversation_id, p_sequence_number, p_reason, p_tries, p_record);
  else
    update dead_letters l
    set stage = 'outbox', reason = p_reason, tries = l.tries + p_tries, record = p_record, replay_requested_at = null
    where l.id = v_letter_id and l.replayed_at is null;
  end if;
  return cut_outbox_rows(p_shard, array[p_row_id], array[p_conversation_id], array[p_sequence_number],
    p_poller_id, p_epoch);
end $$;

-- Puts letters into the outbox again, in the order of conversation and number: row ids are given in that order.
create function enqueue_replays(p_ids uuid[], p_traceparent text) returns void
language sql as $$
  insert into outbox (shard, conversation_ids, sequence_numbers, traceparents, payload_bytes, enqueued_at,
    dead_letter_id)
  select c.shard, array[l.conversation_id], array[l.sequence_number], array[p_traceparent],
    coalesce(octet_length(m.payload::text), 0) + coalesce(octet_length(m.metadata::text), 0), now(), l.id
  from dead_letters l
  join conversations c on c.id = l.conversation_id
  join messages m on m.conversation_id = l.conversation_id and m.sequence_number = l.sequence_number
  where l.id = any (p_ids)
  order by l.conversation_id, l.sequence_number;
  update dead_letters set replay_requested_at = now() where id = any (p_ids);
$$;

-- Sends one letter on its way again; a second time only once it has left the outbox. The record is made anew of the
-- stored message, so a letter without one cannot be replayed.
create function replay_dead_letter(p_id uuid, p_traceparent text) returns text
language plpgsql as $$
declare
  v_letter dead_letters;
begin
  select * into v_letter from dead_letters l where l.id = p_id for update;
  if not found then return 'unknown'; end if;
  if v_letter.replayed_at is not null then return 'already_replayed'; end if;
  if not exists (select from messages m where m.conversation_id = v_letter.conversation_id
                 and m.sequence_number = v_letter.sequence_number) then return 'not_replayable'; end if;
  if not exists (select from outbox o where o.dead_letter_id = p_id) then
    perform enqueue_replays(array[p_id], p_traceparent);
  end if;
  return 'accepted';
end $$;

-- Sends open letters on their way again that are not already: of one conversation or of all, at most so many.
-- Answers how many. dead_letters_by_message has them in the order of conversation and number.
create function replay_dead_letters(p_conversation_id uuid, p_letters_max integer, p_traceparent text) returns integer
language plpgsql as $$
declare
  v_ids uuid[];
begin
  select array_agg(picked.id) into v_ids from (
    select l.id from dead_letters l
    where l.replayed_at is null and l.replay_requested_at is null
      and l.conversation_id >= coalesce(p_conversation_id, '00000000-0000-0000-0000-000000000000')
      and l.conversation_id <= coalesce(p_conversation_id, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
      and exists (select from messages m
        where m.conversation_id = l.conversation_id and m.sequence_number = l.sequence_number)
    order by l.conversation_id, l.sequence_number
    limit p_letters_max for update of l
  ) picked;
  perform enqueue_replays(v_ids, p_traceparent);
  return coalesce(cardinality(v_ids), 0);
end $$;
