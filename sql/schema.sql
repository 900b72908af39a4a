-- The schema that the migrations make, for reading. Written by `bun run check --write`.

create type event_kind as enum ('message.created', 'message.edited', 'message.deleted', 'member.added', 'member.removed');

create table clients (
  id text not null,
  name text not null,
  secret_hash text not null,
  scopes text[] not null,
  created_at timestamp(3) with time zone default now() not null,
  disabled_at timestamp(3) with time zone,
  constraint clients_pkey PRIMARY KEY (id)
);

create table conversations (
  id uuid not null,
  kind text not null,
  shard smallint not null,
  last_sequence_number bigint default 0 not null,
  last_event_at timestamp(3) with time zone not null,
  channels text[] default '{}'::text[] not null,
  metadata json,
  direct_key text,
  created_by text not null,
  created_at timestamp(3) with time zone not null,
  constraint conversations_pkey PRIMARY KEY (id),
  constraint conversations_direct_key_key UNIQUE (direct_key),
  constraint conversations_check CHECK ((kind = 'direct'::text) = (direct_key IS NOT NULL)),
  constraint conversations_kind_check CHECK (kind = ANY (ARRAY['direct'::text, 'group'::text])),
  constraint conversations_last_sequence_number_check CHECK (last_sequence_number >= 0),
  constraint conversations_shard_check CHECK (shard >= 0)
) with (fillfactor=60);

create table dead_letters (
  id uuid default uuidv7() not null,
  stage text not null,
  conversation_id uuid,
  sequence_number bigint,
  reason text not null,
  tries integer not null,
  record json not null,
  parked_at timestamp(3) with time zone default now() not null,
  replayed_at timestamp(3) with time zone,
  replay_requested_at timestamp(3) with time zone,
  constraint dead_letters_pkey PRIMARY KEY (id),
  constraint dead_letters_stage_check CHECK (stage = ANY (ARRAY['outbox'::text, 'router'::text]))
);

create table members (
  conversation_id uuid not null,
  user_id text not null,
  role text not null,
  delivered bigint default 0 not null,
  read bigint default 0 not null,
  joined_at timestamp(3) with time zone not null,
  constraint members_pkey PRIMARY KEY (conversation_id, user_id),
  constraint members_check CHECK (0 <= read AND read <= delivered),
  constraint members_role_check CHECK (role = ANY (ARRAY['owner'::text, 'member'::text])),
  constraint members_user_id_check CHECK (length(user_id) >= 1 AND length(user_id) <= 128)
) with (fillfactor=80);

create table messages (
  conversation_id uuid not null,
  sequence_number bigint not null,
  event event_kind not null,
  message_id uuid not null,
  idempotency_key uuid not null,
  sender_id text not null,
  payload json,
  metadata json,
  target_sequence_number bigint,
  edited_by bigint,
  deleted_by bigint,
  created_at timestamp(3) with time zone not null,
  constraint messages_pkey PRIMARY KEY (conversation_id, sequence_number),
  constraint messages_check CHECK ((event = ANY (ARRAY['message.edited'::event_kind, 'message.deleted'::event_kind])) = (target_sequence_number IS NOT NULL)),
  constraint messages_sequence_number_check CHECK (sequence_number > 0)
);

create table outbox (
  shard smallint not null,
  id bigint generated always as identity not null,
  conversation_ids uuid[] not null,
  sequence_numbers bigint[] not null,
  traceparents text[] not null,
  payload_bytes integer not null,
  enqueued_at timestamp(3) with time zone not null,
  dead_letter_id uuid,
  constraint outbox_pkey PRIMARY KEY (shard, id)
) with (autovacuum_vacuum_scale_factor=0, autovacuum_vacuum_threshold=2000, autovacuum_vacuum_insert_threshold=-1, autovacuum_vacuum_cost_delay=0);

create table pollers (
  id uuid not null,
  expires_at timestamp with time zone not null,
  constraint pollers_pkey PRIMARY KEY (id)
) with (fillfactor=50);

create table refresh_tokens (
  token_hash bytea not null,
  family_id uuid not null,
  client_id text not null,
  subject text not null,
  scope text not null,
  expires_at timestamp(3) with time zone not null,
  used_at timestamp(3) with time zone,
  constraint refresh_tokens_pkey PRIMARY KEY (token_hash)
);

create table revoked_tokens (
  id text not null,
  expires_at timestamp(3) with time zone not null,
  constraint revoked_tokens_pkey PRIMARY KEY (id)
);

create table routed (
  conversation_id uuid not null,
  sequence_number bigint not null,
  constraint routed_pkey PRIMARY KEY (conversation_id)
) with (fillfactor=60);

create table schema_migrations (
  version integer not null,
  name text not null,
  checksum text not null,
  applied_at timestamp with time zone default now() not null,
  constraint schema_migrations_pkey PRIMARY KEY (version)
);

create table settings (
  name text not null,
  value text not null,
  constraint settings_pkey PRIMARY KEY (name)
);

create table shard_leases (
  shard smallint not null,
  owner uuid,
  epoch bigint default 0 not null,
  expires_at timestamp with time zone default '-infinity'::timestamp with time zone not null,
  constraint shard_leases_pkey PRIMARY KEY (shard)
) with (fillfactor=50);

CREATE INDEX dead_letters_by_conversation ON public.dead_letters USING btree (conversation_id, parked_at, id);

CREATE INDEX dead_letters_by_message ON public.dead_letters USING btree (conversation_id, sequence_number) WHERE (replayed_at IS NULL);

CREATE INDEX dead_letters_open ON public.dead_letters USING btree (parked_at, id) WHERE (replayed_at IS NULL);

CREATE INDEX dead_letters_replayed ON public.dead_letters USING btree (parked_at, id) WHERE (replayed_at IS NOT NULL);

CREATE INDEX members_by_user ON public.members USING btree (user_id);

CREATE UNIQUE INDEX messages_idempotency ON public.messages USING btree (conversation_id, idempotency_key, sender_id, event);

CREATE INDEX outbox_by_time ON public.outbox USING btree (shard, enqueued_at);

CREATE INDEX outbox_replays ON public.outbox USING btree (dead_letter_id) WHERE (dead_letter_id IS NOT NULL);

CREATE INDEX refresh_tokens_by_expiry ON public.refresh_tokens USING btree (expires_at);

CREATE INDEX refresh_tokens_by_family ON public.refresh_tokens USING btree (family_id);

CREATE INDEX revoked_tokens_by_expiry ON public.revoked_tokens USING btree (expires_at);

CREATE OR REPLACE FUNCTION public.add_member(p_conversation_id uuid, p_caller_id text, p_user_id text, p_role text, p_event_id uuid, p_members_max integer, p_traceparent text)
 RETURNS TABLE(outcome text, stored messages)
 LANGUAGE plpgsql
AS $function$
declare
  v_kind text;
  v_role text;
  v_event messages;
begin
  select c.kind into v_kind from conversations c where c.id = p_conversation_id for no key update;
  if not found then return query select 'no_conversation', null::messages; return; end if;

  select b.role into v_role from members b where b.conversation_id = p_conversation_id and b.user_id = p_caller_id;
  if not found then return query select 'not_member', null::messages; return; end if;
  if v_role <> 'owner' then return query select 'not_allowed', null::messages; return; end if;
  if v_kind = 'direct' then return query select 'direct', null::messages; return; end if;
  if exists (select from members b where b.conversation_id = p_conversation_id and b.user_id = p_user_id) then
    return query select 'already_member', null::messages; return;
  end if;
  if (select count(*) from members b where b.conversation_id = p_conversation_id) >= p_members_max then
    return query select 'full', null::messages; return;
  end if;

  v_event := append_event(p_conversation_id, 'member.added', p_event_id, p_event_id, p_caller_id,
    json_build_object('user_id', p_user_id, 'role', p_role)::text, null, p_traceparent);
  insert into members (conversation_id, user_id, role, delivered, read, joined_at)
  values (p_conversation_id, p_user_id, p_role, v_event.sequence_number, v_event.sequence_number,
    v_event.created_at);
  return query select 'accepted', v_event;
end $function$;

CREATE OR REPLACE FUNCTION public.append_event(p_conversation_id uuid, p_event event_kind, p_message_id uuid, p_idempotency_key uuid, p_sender_id text, p_payload text, p_target bigint, p_traceparent text)
 RETURNS messages
 LANGUAGE plpgsql
AS $function$
declare
  v_conversation conversations;
  v_stored messages;
begin
  update conversations c
  set last_sequence_number = c.last_sequence_number + 1, last_event_at = clock_timestamp()
  where c.id = p_conversation_id returning * into strict v_conversation;

  insert into messages (conversation_id, sequence_number, event, message_id, idempotency_key, sender_id,
    payload, target_sequence_number, created_at)
  values (p_conversation_id, v_conversation.last_sequence_number, p_event, p_message_id, p_idempotency_key,
    p_sender_id, p_payload::json, p_target, v_conversation.last_event_at)
  returning * into strict v_stored;

  insert into outbox (shard, conversation_ids, sequence_numbers, traceparents, payload_bytes, enqueued_at)
  values (v_conversation.shard, array[p_conversation_id], array[v_stored.sequence_number],
    array[p_traceparent], coalesce(octet_length(p_payload), 0), v_stored.created_at);

  return v_stored;
end $function$;

CREATE OR REPLACE FUNCTION public.change_message(p_conversation_id uuid, p_target bigint, p_caller_id text, p_idempotency_key uuid, p_payload text, p_traceparent text)
 RETURNS TABLE(outcome text, stored messages)
 LANGUAGE plpgsql
AS $function$
declare
  v_event event_kind := case when p_payload is null then 'message.deleted' else 'message.edited' end;
  v_role text;
  v_target messages;
  v_earlier messages;
begin
  perform from conversations c where c.id = p_conversation_id for no key update;
  if not found then return query select 'no_conversation', null::messages; return; end if;

  select b.role into v_role from members b where b.conversation_id = p_conversation_id and b.user_id = p_caller_id;
  if not found then return query select 'not_member', null::messages; return; end if;

  select * into v_earlier from messages m
  where m.conversation_id = p_conversation_id and m.idempotency_key = p_idempotency_key
    and m.sender_id = p_caller_id and m.event = v_event;
  if found then
    return query select
      case when v_earlier.target_sequence_number = p_target
        and v_earlier.payload::jsonb is not distinct from p_payload::jsonb then 'replayed' else 'reused' end,
      v_earlier;
    return;
  end if;

  select * into v_target from messages m
  where m.conversation_id = p_conversation_id and m.sequence_number = p_target and m.event = 'message.created';
  if not found then return query select 'no_message', null::messages; return; end if;
  if v_target.sender_id <> p_caller_id and not (p_payload is null and v_role = 'owner') then
    return query select 'not_allowed', null::messages; return;
  end if;
  if v_target.deleted_by is not null then return query select 'deleted', null::messages; return; end if;

  v_earlier := append_event(p_conversation_id, v_event, v_target.message_id, p_idempotency_key, p_caller_id,
    p_payload, p_target, p_traceparent);
  update messages m
  set edited_by = case when p_payload is null then m.edited_by else v_earlier.sequence_number end,
      deleted_by = case when p_payload is null then v_earlier.sequence_number end
  where m.conversation_id = p_conversation_id and m.sequence_number = p_target;
  return query select 'accepted', v_earlier;
end $function$;

CREATE OR REPLACE FUNCTION public.claim_shards(p_poller_id uuid, p_lease_ms integer)
 RETURNS TABLE(shard smallint, epoch bigint)
 LANGUAGE plpgsql
AS $function$
#variable_conflict use_column
declare
  v_lease interval := p_lease_ms * interval '1 millisecond';
  v_now timestamptz;
  v_share integer;
begin
  perform pg_advisory_xact_lock(hashtext('chat4all.claim_shards'));
  -- Only now: no lease that another poller was given while this one waited is further ahead.
  v_now := clock_timestamp();
  insert into pollers (id, expires_at) values (p_poller_id, v_now + v_lease)
  on conflict (id) do update set expires_at = excluded.expires_at;
  delete from pollers p where p.expires_at <= v_now or p.expires_at > v_now + v_lease;

  update shard_leases l set owner = null, expires_at = '-infinity'
  where l.owner is not null and (l.expires_at <= v_now or l.expires_at > v_now + v_lease);

  select ceil((select count(*) from shard_leases)::numeric / (select count(*) from pollers)) into v_share;

  update shard_leases l set expires_at = v_now + v_lease where l.owner = p_poller_id;

  update shard_leases l set owner = null, expires_at = '-infinity'
  where l.shard in (select o.shard from shard_leases o where o.owner = p_poller_id
                    order by o.shard offset v_share);

  update shard_leases l set owner = p_poller_id, epoch = l.epoch + 1, expires_at = v_now + v_lease
  where l.shard in (
    select f.shard from shard_leases f where f.owner is null
    order by f.shard
    limit greatest(0, v_share - (select count(*) from shard_leases o where o.owner = p_poller_id)));

  return query select l.shard, l.epoch from shard_leases l where l.owner = p_poller_id order by l.shard;
end $function$;

CREATE OR REPLACE FUNCTION public.create_conversation(p_id uuid, p_kind text, p_shard smallint, p_creator_id text, p_member_ids text[], p_channels text[], p_metadata text, p_direct_key text)
 RETURNS TABLE(outcome text, conversation_id uuid)
 LANGUAGE plpgsql
AS $function$
begin
  insert into conversations (id, kind, shard, last_event_at, channels, metadata, direct_key, created_by, created_at)
  values (p_id, p_kind, p_shard, clock_timestamp(), p_channels, p_metadata::json, p_direct_key, p_creator_id,
    clock_timestamp())
  on conflict (direct_key) do nothing;
  if not found then
    return query select 'existing', c.id from conversations c where c.direct_key = p_direct_key;
    return;
  end if;

  insert into members (conversation_id, user_id, role, joined_at)
  select p_id, u, case when u = p_creator_id then 'owner' else 'member' end, now()
  from (select distinct u from unnest(array_append(p_member_ids, p_creator_id)) u) distinct_members;
  return query select 'created', p_id;
end $function$;

CREATE OR REPLACE FUNCTION public.cut_outbox_rows(p_shard smallint, p_row_ids bigint[], p_conversation_ids uuid[], p_sequence_numbers bigint[], p_poller_id uuid, p_epoch bigint)
 RETURNS boolean
 LANGUAGE plpgsql
AS $function$
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
end $function$;

CREATE OR REPLACE FUNCTION public.enqueue_replays(p_ids uuid[], p_traceparent text)
 RETURNS void
 LANGUAGE sql
AS $function$
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
$function$;

CREATE OR REPLACE FUNCTION public.ingest_batch(p_conversation_ids uuid[], p_sender_ids text[], p_message_ids uuid[], p_payloads text[], p_metadatas text[], p_traceparents text[], p_token_ids text[], p_family_ids text[])
 RETURNS TABLE(ord integer, outcome text, sequence_number bigint, created_at timestamp with time zone, shard smallint)
 LANGUAGE plpgsql
 SET plan_cache_mode TO 'force_generic_plan'
 SET enable_seqscan TO 'off'
AS $function$
#variable_conflict use_column
declare
  v_now timestamptz(3);
begin
  perform from conversations c where c.id = any (p_conversation_ids) order by c.id for no key update;
  v_now := clock_timestamp();

  return query
  with looked_up as materialized (
    select i.*,
      (select c from conversations c where c.id = i.conversation_id) as conversation,
      exists (select from members b
        where b.conversation_id = i.conversation_id and b.user_id = i.sender_id) as is_member,
      exists (select from revoked_tokens r where r.id in (i.token_id, i.family_id)) as is_revoked,
      (select m from messages m
        where m.conversation_id = i.conversation_id and m.idempotency_key = i.message_id
          and m.sender_id = i.sender_id and m.event = 'message.created') as earlier
    from unnest(p_conversation_ids, p_sender_ids, p_message_ids, p_payloads, p_metadatas, p_traceparents,
        p_token_ids, p_family_ids) with ordinality
      as i(conversation_id, sender_id, message_id, payload, metadata, traceparent, token_id, family_id, ord)
  ), judged as materialized (
    select l.*,
      (l.conversation).shard as to_shard,
      case
        when l.is_revoked then 'revoked'
        when (l.conversation).id is null then 'no_conversation'
        when not l.is_member then 'not_member'
        when (l.earlier).message_id is null then 'accepted'
        when (l.earlier).payload::jsonb = l.payload::jsonb
          and (l.earlier).metadata::jsonb is not distinct from l.metadata::jsonb then 'replayed'
        else 'reused'
      end as verdict
    from looked_up l
  ), numbered as materialized (
    select j.*,
      case j.verdict
        when 'accepted' then (j.conversation).last_sequence_number
          + count(*) filter (where j.verdict = 'accepted') over (partition by j.conversation_id order by j.ord)
        when 'replayed' then (j.earlier).sequence_number
      end as number
    from judged j
  ), stored as (
    insert into messages (conversation_id, sequence_number, event, message_id, idempotency_key, sender_id,
      payload, metadata, created_at)
    select n.conversation_id, n.number, 'message.created', n.message_id, n.message_id, n.sender_id,
      n.payload::json, n.metadata::json, v_now
    from numbered n where n.verdict = 'accepted'
  ), counted as (
    update conversations c
    set last_sequence_number = h.last, last_event_at = v_now
    from (select n.conversation_id, max(n.number) as last from numbered n
          where n.verdict = 'accepted' group by n.conversation_id) h
    where c.id = h.conversation_id
  ), enqueued as (
    insert into outbox (shard, conversation_ids, sequence_numbers, traceparents, payload_bytes, enqueued_at)
    select n.to_shard, array_agg(n.conversation_id order by n.ord), array_agg(n.number order by n.ord),
      array_agg(n.traceparent order by n.ord), sum(octet_length(n.payload) + coalesce(octet_length(n.metadata), 0)),
      v_now
    from numbered n where n.verdict = 'accepted' group by n.to_shard
  )
  select n.ord::integer, n.verdict, n.number,
    case when n.verdict = 'replayed' then (n.earlier).created_at else v_now end, n.to_shard
  from numbered n;
end $function$;

CREATE OR REPLACE FUNCTION public.move_cursors(p_conversation_id uuid, p_user_id text, p_delivered bigint, p_read bigint)
 RETURNS TABLE(outcome text, delivered bigint, read bigint)
 LANGUAGE plpgsql
AS $function$
#variable_conflict use_column
declare
  v_last bigint;
begin
  select c.last_sequence_number into v_last from conversations c where c.id = p_conversation_id;
  if not found then return query select 'no_conversation', 0::bigint, 0::bigint; return; end if;
  if not exists (select from members b where b.conversation_id = p_conversation_id and b.user_id = p_user_id) then
    return query select 'not_member', 0::bigint, 0::bigint; return;
  end if;
  if greatest(p_delivered, p_read) > v_last then return query select 'beyond_last', v_last, v_last; return; end if;

  return query
  update members b
  set delivered = greatest(b.delivered, p_delivered, p_read), read = greatest(b.read, p_read)
  where b.conversation_id = p_conversation_id and b.user_id = p_user_id
  returning 'accepted'::text, b.delivered, b.read;
end $function$;

CREATE OR REPLACE FUNCTION public.owns_shard(p_shard smallint, p_poller_id uuid, p_epoch bigint)
 RETURNS boolean
 LANGUAGE plpgsql
AS $function$
begin
  perform from shard_leases l
  where l.shard = p_shard and l.owner = p_poller_id and l.epoch = p_epoch for share;
  return found;
end $function$;

CREATE OR REPLACE FUNCTION public.park_outbox_record(p_shard smallint, p_row_id bigint, p_conversation_id uuid, p_sequence_number bigint, p_poller_id uuid, p_epoch bigint, p_reason text, p_tries integer, p_record json)
 RETURNS boolean
 LANGUAGE plpgsql
AS $function$
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
end $function$;

CREATE OR REPLACE FUNCTION public.release_shards(p_poller_id uuid)
 RETURNS void
 LANGUAGE sql
AS $function$
  update shard_leases set owner = null, expires_at = '-infinity' where owner = p_poller_id;
  delete from pollers where id = p_poller_id;
$function$;

CREATE OR REPLACE FUNCTION public.remove_member(p_conversation_id uuid, p_caller_id text, p_user_id text, p_event_id uuid, p_traceparent text)
 RETURNS TABLE(outcome text, stored messages)
 LANGUAGE plpgsql
AS $function$
declare
  v_kind text;
  v_role text;
  v_event messages;
begin
  select c.kind into v_kind from conversations c where c.id = p_conversation_id for no key update;
  if not found then return query select 'no_conversation', null::messages; return; end if;

  select b.role into v_role from members b where b.conversation_id = p_conversation_id and b.user_id = p_caller_id;
  if not found then return query select 'not_member', null::messages; return; end if;
  if v_role <> 'owner' and p_user_id <> p_caller_id then
    return query select 'not_allowed', null::messages; return;
  end if;
  if v_kind = 'direct' then return query select 'direct', null::messages; return; end if;

  delete from members b where b.conversation_id = p_conversation_id and b.user_id = p_user_id;
  if not found then return query select 'no_such_member', null::messages; return; end if;
  v_event := append_event(p_conversation_id, 'member.removed', p_event_id, p_event_id, p_caller_id,
    json_build_object('user_id', p_user_id)::text, null, p_traceparent);
  return query select 'accepted', v_event;
end $function$;

CREATE OR REPLACE FUNCTION public.replay_dead_letter(p_id uuid, p_traceparent text)
 RETURNS text
 LANGUAGE plpgsql
AS $function$
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
end $function$;

CREATE OR REPLACE FUNCTION public.replay_dead_letters(p_conversation_id uuid, p_letters_max integer, p_traceparent text)
 RETURNS integer
 LANGUAGE plpgsql
AS $function$
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
end $function$;

CREATE OR REPLACE FUNCTION public.revoke_family(p_family_id uuid, p_access_seconds integer)
 RETURNS void
 LANGUAGE sql
AS $function$
  delete from refresh_tokens where family_id = p_family_id;
  insert into revoked_tokens (id, expires_at)
  values (p_family_id::text, now() + p_access_seconds * interval '1 second')
  on conflict (id) do nothing;
$function$;

CREATE OR REPLACE FUNCTION public.rotate_refresh_token(p_token_hash bytea, p_client_id text, p_next_hash bytea, p_next_expires_at timestamp with time zone, p_access_seconds integer)
 RETURNS TABLE(outcome text, family_id uuid, subject text, scope text)
 LANGUAGE plpgsql
AS $function$
#variable_conflict use_column
declare
  v_token refresh_tokens;
begin
  select * into v_token from refresh_tokens t where t.token_hash = p_token_hash for update;
  if not found or v_token.client_id <> p_client_id or v_token.expires_at <= now() then
    return query select 'unknown', null::uuid, null::text, null::text; return;
  end if;
  if v_token.used_at is not null then
    perform revoke_family(v_token.family_id, p_access_seconds);
    return query select 'reused', v_token.family_id, v_token.subject, v_token.scope; return;
  end if;

  update refresh_tokens t set used_at = now() where t.token_hash = p_token_hash;
  insert into refresh_tokens (token_hash, family_id, client_id, subject, scope, expires_at)
  values (p_next_hash, v_token.family_id, v_token.client_id, v_token.subject, v_token.scope, p_next_expires_at);
  return query select 'rotated', v_token.family_id, v_token.subject, v_token.scope;
end $function$;
