-- Cursors forward, in one commit; see move_cursors in the migrations.
select outcome, delivered, read from move_cursors($1, $2, $3, $4)
