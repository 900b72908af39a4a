-- A member's conversations, latest activity first, from a keyset cursor on. members_by_user finds them; the sort is
-- over one user's conversations only, since an index on the activity would make each message's update cold.
select c.id, c.kind, c.channels, c.metadata, c.last_sequence_number, c.last_event_at, own.delivered, own.read,
  (select count(*) from members b where b.conversation_id = c.id) as member_count,
  (select json_agg(json_build_object('user_id', first.user_id, 'role', first.role))
   from (select b.user_id, b.role from members b where b.conversation_id = c.id
         order by b.joined_at, b.user_id limit 10) first) as members,
  (select count(*) from (
     select from messages u
     where u.conversation_id = c.id and u.sequence_number > own.read and u.event = 'message.created'
       and u.sender_id <> own.user_id and u.deleted_by is null
     limit 1000) unread) as unread_count,
  last.sequence_number, last.message_id, last.sender_id, last.payload as last_payload,
  last.metadata as last_metadata, last.created_at, last.edited_at, last.deleted_at
from (
  select m.user_id, m.delivered, m.read, m.conversation_id
  from members m join conversations o on o.id = m.conversation_id
  where m.user_id = $1
    and ($2::timestamptz is null or (o.last_event_at, o.id) < ($2::timestamptz, $3::uuid))
  order by o.last_event_at desc, o.id desc limit $4
) own
join conversations c on c.id = own.conversation_id
left join lateral (
  select m.sequence_number, m.message_id, m.sender_id, coalesce(e.payload, m.payload) as payload, m.metadata,
    m.created_at, e.created_at as edited_at, d.created_at as deleted_at
  from messages m
  left join messages e on e.conversation_id = m.conversation_id and e.sequence_number = m.edited_by
  left join messages d on d.conversation_id = m.conversation_id and d.sequence_number = m.deleted_by
  where m.conversation_id = c.id and m.event = 'message.created'
  order by m.sequence_number desc limit 1
) last on true
order by c.last_event_at desc, c.id desc
