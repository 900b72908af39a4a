-- By primary key; a disabled client is as good as none.
select id, secret_hash, scopes from clients where id = $1 and disabled_at is null
