-- Of the dead letters $1, those that are open; by primary key.
select id from dead_letters where id = any ($1::uuid[]) and replayed_at is null
