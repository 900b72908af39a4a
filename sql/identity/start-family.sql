-- The first refresh token of a sign-in; dead ones are swept on the way, a few at a time (refresh_tokens_by_expiry).
-- Rows that another sign-in sweeps are left to it, so that two can neither wait for each other nor deadlock.
with swept as (
  delete from refresh_tokens
  where token_hash in (
    select token_hash from refresh_tokens where expires_at < now() limit 100 for update skip locked
  )
)
insert into refresh_tokens (token_hash, family_id, client_id, subject, scope, expires_at)
values ($1, $2, $3, $4, $5, $6)
