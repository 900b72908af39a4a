-- What has expired is swept, a few rows at a time, by the statements that add: they find it here, and not by a scan.

create index refresh_tokens_by_expiry on refresh_tokens (expires_at);
create index revoked_tokens_by_expiry on revoked_tokens (expires_at);
