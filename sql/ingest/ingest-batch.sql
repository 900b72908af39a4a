-- One commit for the whole batch; see ingest_batch in the migrations for its locks and look-ups.
select outcome, sequence_number, created_at, shard
from ingest_batch($1, $2, $3, $4, $5, $6, $7, $8)
order by ord
