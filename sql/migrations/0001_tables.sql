-- The tables of the walk, in its order: conversations and members, messages, outbox, routing, then identity.
-- Times have milliseconds, as the API shows them.

create type event_kind as enum
  ('message.created', 'message.edited', 'message.deleted', 'member.added', 'member.removed');

-- Facts that must be the same for everybody who shares this database, such as the number of shards.
create table settings (
  name text primary key,
  value text not null
);

-- A conversation's row is locked for each batch that adds to it: it is the one source of numbers.
-- None of the columns that a message changes is indexed, so its updates stay HOT (heap only).
create table conversations (
  id uuid primary key,
  kind text not null check (kind in ('direct', 'group')),
  shard smallint not null check (shard >= 0),
  last_sequence_number bigint not null default 0 check (last_sequence_number >= 0),
  last_event_at timestamptz(3) not null,
  channels text[] not null default '{}',
  metadata json,
  direct_key text unique,
  created_by text not null,
  created_at timestamptz(3) not null,
  check ((kind = 'direct') = (direct_key is not null))
) with (fillfactor = 60);

-- delivered and read are cursors: they only ever rise, and never pass the conversation's last number.
create table members (
  conversation_id uuid not null,
  user_id text not null check (length(user_id) between 1 and 128),
  role text not null check (role in ('owner', 'member')),
  delivered bigint not null default 0,
  read bigint not null default 0,
  joined_at timestamptz(3) not null,
  primary key (conversation_id, user_id),
  check (0 <= read and read <= delivered)
) with (fillfactor = 80);

create index members_by_user on members (user_id);

-- Every numbered event. payload is what was said at that number and never changes; an edit or a delete is
-- an event of its own, whose number is noted here so that the history can show the message as it now stands.
-- No foreign key to conversations: each insert happens under that row's lock, and the trigger would cost
-- more than the insert.
create table messages (
  conversation_id uuid not null,
  sequence_number bigint not null check (sequence_number > 0),
  event event_kind not null,
  message_id uuid not null,
  idempotency_key uuid not null,
  sender_id text not null,
  payload json,
  metadata json,
  target_sequence_number bigint,
  edited_by bigint,
  deleted_by bigint,
  created_at timestamptz(3) not null,
  primary key (conversation_id, sequence_number),
  check ((event in ('message.edited', 'message.deleted')) = (target_sequence_number is not null))
);

-- The scope of a message_id is one sender in one conversation, for as long as the message lives.
create unique index messages_idempotency
  on messages (conversation_id, idempotency_key, sender_id, event);

-- One thin row per shard and commit; the poller joins it to the messages. Rows are read in the order of id:
-- within a conversation that is the order of numbers, since the id is taken under the conversation's lock.
-- enqueued_at equals the created_at of its messages, by which a message finds its row.
create table outbox (
  shard smallint not null,
  id bigint generated always as identity,
  conversation_ids uuid[] not null,
  sequence_numbers bigint[] not null,
  traceparents text[] not null,
  payload_bytes integer not null,
  enqueued_at timestamptz(3) not null,
  primary key (shard, id)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
        autovacuum_vacuum_insert_threshold = -1, autovacuum_vacuum_cost_delay = 0);

create index outbox_by_time on outbox (shard, enqueued_at);

-- Who publishes a shard. The epoch rises with each change of owner and fences the one before.
create table shard_leases (
  shard smallint primary key,
  owner uuid,
  epoch bigint not null default 0,
  expires_at timestamptz not null default '-infinity'
) with (fillfactor = 50);

-- Pollers that are alive, so that shards are shared evenly.
create table pollers (
  id uuid primary key,
  expires_at timestamptz not null
) with (fillfactor = 50);

-- The router's watermark: every event up to this number is on its public topics.
create table routed (
  conversation_id uuid primary key,
  sequence_number bigint not null
) with (fillfactor = 60);

-- What a stage could not pass after its tries. An open one makes its message's state `failed`.
create table dead_letters (
  id uuid primary key default uuidv7(),
  stage text not null check (stage in ('outbox', 'router')),
  conversation_id uuid,
  sequence_number bigint,
  reason text not null,
  tries integer not null,
  record json not null,
  parked_at timestamptz(3) not null default now(),
  replayed_at timestamptz(3)
);

create index dead_letters_by_message on dead_letters (conversation_id, sequence_number)
  where replayed_at is null;

create table clients (
  id text primary key,
  name text not null,
  secret_hash text not null,
  scopes text[] not null,
  created_at timestamptz(3) not null default now(),
  disabled_at timestamptz(3)
);

-- A family starts at a sign-in; each refresh replaces its one live token (RFC 9700, 4.14.2).
create table refresh_tokens (
  token_hash bytea primary key,
  family_id uuid not null,
  client_id text not null,
  subject text not null,
  scope text not null,
  expires_at timestamptz(3) not null,
  used_at timestamptz(3)
);

create index refresh_tokens_by_family on refresh_tokens (family_id);

-- Ids of access tokens, and of whole families, that are refused before they expire.
create table revoked_tokens (
  id text primary key,
  expires_at timestamptz(3) not null
);
