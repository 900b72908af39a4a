-- A new client; its secret is known to its owner only, the hash is all that stays.
insert into clients (id, name, secret_hash, scopes) values ($1, $2, $3, $4)
