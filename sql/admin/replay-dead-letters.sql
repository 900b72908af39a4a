-- Sends open letters on their way again, of conversation $1 or of all (null), at most $2, in the trace $3.
select replay_dead_letters($1, $2, $3) as accepted
