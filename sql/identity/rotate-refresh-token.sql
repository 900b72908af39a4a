-- One commit: the used mark and the next token, or the end of the family.
select outcome, family_id, subject, scope from rotate_refresh_token($1, $2, $3, $4, $5)
