-- Sends the dead letter $1 on its way again, in the trace $2; answers accepted, or why not.
select replay_dead_letter($1, $2) as outcome
