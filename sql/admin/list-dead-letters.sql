-- Dead letters, newest first: the open ones if $1, those that were replayed if $2, only those before ($3, $4), at most
-- $5. Each part is read in order from an index of its own.
select * from (
  (select l.id, l.stage, l.conversation_id, l.sequence_number, l.reason, l.tries, l.parked_at,
     l.replay_requested_at, l.replayed_at
   from dead_letters l
   where $1::boolean and l.replayed_at is null and (l.parked_at, l.id) < ($3::timestamptz, $4::uuid)
   order by l.parked_at desc, l.id desc limit $5)
  union all
  (select l.id, l.stage, l.conversation_id, l.sequence_number, l.reason, l.tries, l.parked_at,
     l.replay_requested_at, l.replayed_at
   from dead_letters l
   where $2::boolean and l.replayed_at is not null and (l.parked_at, l.id) < ($3::timestamptz, $4::uuid)
   order by l.parked_at desc, l.id desc limit $5)
) parts
order by parked_at desc, id desc limit $5
