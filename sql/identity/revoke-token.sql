-- Refuses a token or family until it would have expired; expired entries are swept on the way, a few at a time
-- (revoked_tokens_by_expiry). Rows that another call sweeps are left to it, so that two can not deadlock.
with swept as (
  delete from revoked_tokens
  where id in (select id from revoked_tokens where expires_at < now() limit 100 for update skip locked)
)
insert into revoked_tokens (id, expires_at) values ($1, $2)
on conflict (id) do nothing
