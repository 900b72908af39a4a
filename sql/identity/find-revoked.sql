-- Which of these tokens or families are refused. By primary key; the table is small (it lives as long as tokens).
select id from revoked_tokens where id = any ($1::text[])
