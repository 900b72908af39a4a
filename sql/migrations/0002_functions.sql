-- Everything that adds to a conversation is one call, so that it is one commit.

-- Accepts a batch of messages, each row judged alone. Callers see to it that no two rows of a batch
-- share conversation, sender and message_id.
--
-- The lock and the reading are two statements on purpose: a VOLATILE function takes a fresh snapshot for each,
-- so that the second sees all that committed while the first waited. Locks are taken in the order of id, so
-- that two batches cannot deadlock. Every look-up is a scalar subquery by a full key: estimates over unnest
-- are too low for joins to be planned well. The plan is always the same one, so it is made once per connection
-- (planning anew cost as much as a small batch), and must not scan tables that were small when it was made.
create function ingest_batch(
  p_conversation_ids uuid[],
  p_sender_ids text[],
  p_message_ids uuid[],
  p_payloads text[],
  p_metadatas text[],
  p_traceparents text[],
  p_token_ids text[],
  p_family_ids text[]
) returns table (ord integer, outcome text, sequence_number bigint, created_at timestamptz, shard smallint)
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
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
end $$;

-- Adds one event that is not a new message; the caller holds the conversation's lock. Answers its row.
create function append_event(
  p_conversation_id uuid,
  p_event event_kind,
  p_message_id uuid,
  p_idempotency_key uuid,
  p_sender_id text,
  p_payload text,
  p_target bigint,
  p_traceparent text
) returns messages
language plpgsql as $$
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
end $$;

-- Edits (with a payload) or deletes (without) the message at a number. The outcome comes with the event that
-- was stored, or with the first one again when the idempotency key was seen before.
create function change_message(
  p_conversation_id uuid,
  p_target bigint,
  p_caller_id text,
  p_idempotency_key uuid,
  p_payload text,
  p_traceparent text
) returns table (outcome text, stored messages)
language plpgsql as $$
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
end $$;

-- Makes a conversation with its first members, who are no events; the caller is among them as owner.
-- A direct conversation of the same two exists once: then the existing one's id and `existing` are answered.
create function create_conversation(
  p_id uuid,
  p_kind text,
  p_shard smallint,
  p_creator_id text,
  p_member_ids text[],
  p_channels text[],
  p_metadata text,
  p_direct_key text
) returns table (outcome text, conversation_id uuid)
language plpgsql as $$
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
end $$;

-- Adds a member; cursors start at the event that says so, since what came before is not unread.
create function add_member(
  p_conversation_id uuid,
  p_caller_id text,
  p_user_id text,
  p_role text,
  p_event_id uuid,
  p_members_max integer,
  p_traceparent text
) returns table (outcome text, stored messages)
language plpgsql as $$
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
end $$;

-- Removes a member: nothing that is numbered after this event may reach them.
create function remove_member(
  p_conversation_id uuid,
  p_caller_id text,
  p_user_id text,
  p_event_id uuid,
  p_traceparent text
) returns table (outcome text, stored messages)
language plpgsql as $$
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
end $$;

-- Moves a member's cursors forward; read raises delivered. A number beyond the conversation's last changes nothing.
create function move_cursors(
  p_conversation_id uuid,
  p_user_id text,
  p_delivered bigint,
  p_read bigint
) returns table (outcome text, delivered bigint, read bigint)
language plpgsql as $$
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
end $$;

-- Renews a poller's leases, gives back what is over its even share, and takes shards that nobody holds up to it.
-- Answers what it owns now. One poller at a time (advisory lock), by the database's clock only.
create function claim_shards(p_poller_id uuid, p_lease_ms integer)
returns table (shard smallint, epoch bigint)
language plpgsql as $$
#variable_conflict use_column
declare
  v_share integer;
  v_expires_at timestamptz := clock_timestamp() + p_lease_ms * interval '1 millisecond';
begin
  perform pg_advisory_xact_lock(hashtext('chat4all.claim_shards'));
  insert into pollers (id, expires_at) values (p_poller_id, v_expires_at)
  on conflict (id) do update set expires_at = excluded.expires_at;
  delete from pollers p where p.expires_at < clock_timestamp();

  select ceil((select count(*) from shard_leases)::numeric / (select count(*) from pollers)) into v_share;

  update shard_leases l set expires_at = v_expires_at
  where l.owner = p_poller_id and l.expires_at > clock_timestamp();

  update shard_leases l set owner = null, expires_at = '-infinity'
  where l.shard in (select o.shard from shard_leases o where o.owner = p_poller_id
                    order by o.shard offset v_share);

  update shard_leases l set owner = p_poller_id, epoch = l.epoch + 1, expires_at = v_expires_at
  where l.shard in (
    select f.shard from shard_leases f where f.owner is null or f.expires_at <= clock_timestamp()
    order by f.shard
    limit greatest(0, v_share - (select count(*) from shard_leases o
      where o.owner = p_poller_id and o.expires_at > clock_timestamp())));

  return query select l.shard, l.epoch from shard_leases l
  where l.owner = p_poller_id and l.expires_at > clock_timestamp() order by l.shard;
end $$;

-- Gives all of a poller's shards back at once, as a drain does.
create function release_shards(p_poller_id uuid) returns void
language sql as $$
  update shard_leases set owner = null, expires_at = '-infinity' where owner = p_poller_id;
  delete from pollers where id = p_poller_id;
$$;

-- Trades a refresh token for the next one of its family. A token that was used before revokes the whole family:
-- its refresh tokens are deleted, and its access tokens refused for as long as they may still live (RFC 9700, 4.14.2).
create function rotate_refresh_token(
  p_token_hash bytea,
  p_client_id text,
  p_next_hash bytea,
  p_next_expires_at timestamptz,
  p_access_seconds integer
) returns table (outcome text, family_id uuid, subject text, scope text)
language plpgsql as $$
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
end $$;

-- Ends a family: no refresh, and no access with what it was given before.
create function revoke_family(p_family_id uuid, p_access_seconds integer) returns void
language sql as $$
  delete from refresh_tokens where family_id = p_family_id;
  insert into revoked_tokens (id, expires_at)
  values (p_family_id::text, now() + p_access_seconds * interval '1 second')
  on conflict (id) do nothing;
$$;
