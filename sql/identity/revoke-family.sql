-- Ends a family of refresh tokens and the access tokens that came from it.
select revoke_family($1, $2)
