-- By primary key.
select family_id, client_id from refresh_tokens where token_hash = $1
