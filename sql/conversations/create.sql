-- The conversation with its first members in one commit, or the direct one of the same two that exists.
select outcome, conversation_id from create_conversation($1, $2, $3, $4, $5, $6, $7, $8)
