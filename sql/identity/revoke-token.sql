-- Refuses a token or family until it would have expired; expired entries are swept on the way, a few at a time.
with swept as (
  delete from revoked_tokens
  where id in (select id from revoked_tokens where expires_at < now() limit 100)
)
insert into revoked_tokens (id, expires_at) values ($1, $2)
on conflict (id) do nothing
