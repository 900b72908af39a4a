-- A replay of letter $1 failed: it stays open, with the reason $2, $3 tries more and the record $4. By primary key.
update dead_letters
set stage = 'router', reason = $2, tries = tries + $3, record = $4::text::json, replay_requested_at = null
where id = $1 and replayed_at is null
