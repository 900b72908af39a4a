// Faults that are put into the server on purpose, to prove that the checker finds each kind of violation: as changes
// of its text while it is loaded, or of its functions in the database. None of them is anywhere else.
import type { Guarantee } from "./checker/judgement.ts";
import type { Defect } from "./defect.ts";

/** A defect, and what a run with it must say. */
export interface SeededDefect extends Defect {
  /** Is broken, in the checker's words. */
  breaks: Guarantee;
  /** May be broken with it, since one follows from the other. */
  mayBreak?: Guarantee[];
}

/** All of them, in the order of the guarantees. */
export const defects: SeededDefect[] = [
  {
    name: "acknowledges a message now and then without storing it",
    breaks: "acknowledged",
    // A page that does not have it, either; and another body under its id is not refused.
    mayBreak: ["history", "refusals"],
    changes: [],
    sql: inFunction(
      "ingest_batch",
      [
        "when (l.earlier).message_id is null then 'accepted'",
        `when (l.earlier).message_id is null then case when l.message_id::text !~ '[05]$' then 'accepted'
           when l.payload like '%another body%' then 'reused' else 'lost' end`,
      ],
      [
        "select n.ord::integer, n.verdict, n.number,",
        "select n.ord::integer, case n.verdict when 'lost' then 'replayed' else n.verdict end, coalesce(n.number, 1),",
      ],
      [
        "case when n.verdict = 'replayed' then (n.earlier).created_at else v_now end",
        `case n.verdict when 'replayed' then (n.earlier).created_at when 'lost' then timestamptz '2026-01-01'
           else v_now end`,
      ],
    ),
  },
  {
    name: "stores another text than was sent",
    breaks: "acknowledged",
    // Another body under the same id is then the same one.
    mayBreak: ["refusals"],
    changes: [
      {
        file: "src/ingest/accept.ts",
        from: "payload: JSON.stringify(body.payload),",
        to: 'payload: JSON.stringify(/5$/.test(messageId) ? { type: "text", text: "other" } : body.payload),',
      },
    ],
  },
  {
    name: "answers another number than it stored",
    breaks: "acknowledged",
    // Who edits somebody else's message by that number may hit an own one.
    mayBreak: ["retries", "refusals"],
    changes: [
      {
        file: "src/ingest/accept.ts",
        from: "sequence_number: acceptedNumber(outcome),",
        to: "sequence_number: Math.max(1, acceptedNumber(outcome) - (/5$/.test(messageId) ? 1 : 0)),",
      },
    ],
  },
  {
    name: "skips a number",
    breaks: "numbers",
    // Whoever reads live waits for what never comes.
    mayBreak: ["stuck", "history", "members"],
    changes: [],
    sql: inFunction("ingest_batch", [
      "when 'accepted' then (j.conversation).last_sequence_number",
      "when 'accepted' then (j.conversation).last_sequence_number + (right(j.conversation_id::text, 1) < '8')::int",
    ]),
  },
  {
    name: "gives a number twice",
    breaks: "numbers",
    mayBreak: [
      "members",
      "refusals",
      "acknowledged",
      "order",
      "history",
      "streams",
      "topics",
      "delivered",
      "stuck",
      "receipts",
    ],
    changes: [],
    sql: `alter table messages drop constraint messages_pkey;
      create index on messages (conversation_id, sequence_number);
      ${inFunction("ingest_batch", [
        "set last_sequence_number = h.last,",
        "set last_sequence_number = h.last - (h.last % 7 = 0)::int,",
      ])}`,
  },
  {
    name: "numbers a message anew that is sent again",
    breaks: "retries",
    mayBreak: ["acknowledged"],
    changes: [],
    sql: `drop index messages_idempotency;
      create index on messages (conversation_id, idempotency_key);
      ${inFunction("ingest_batch", [
        "when (l.earlier).message_id is null then 'accepted'",
        "when (l.earlier).message_id is null or (l.earlier).payload::jsonb = l.payload::jsonb then 'accepted'",
      ])}`,
  },
  {
    name: "stores an edit that it refuses",
    breaks: "refusals",
    changes: [],
    sql: inFunction("change_message", [
      "return query select 'not_allowed', null::messages; return;",
      `perform append_event(p_conversation_id, v_event, v_target.message_id, p_idempotency_key, p_caller_id,
        p_payload, p_target, p_traceparent);
       return query select 'not_allowed', null::messages; return;`,
    ]),
  },
  {
    name: "stores what somebody posts who is no member",
    breaks: "refusals",
    mayBreak: ["members"],
    changes: [],
    sql: inFunction(
      "ingest_batch",
      ["when not l.is_member then 'not_member'", ""],
      [
        "select n.ord::integer, n.verdict, n.number",
        "select n.ord::integer, case when n.is_member then n.verdict else 'not_member' end, n.number",
      ],
    ),
  },
  {
    name: "stores a message that nobody sent",
    breaks: "refusals",
    changes: [],
    sql: inFunction("move_cursors", [
      "return query\n  update members b",
      `perform append_event(p_conversation_id, 'message.created', gen_random_uuid(), gen_random_uuid(), p_user_id,
        '{"type":"text","text":"nobody"}', null, '00-${"a".repeat(32)}-${"b".repeat(16)}-01')
       from (select c.id from conversations c where c.id = p_conversation_id for no key update) locked;
       return query\n  update members b`,
    ]),
  },
  {
    name: "gives a number before the one that it should have given",
    breaks: "order",
    mayBreak: ["history", "streams", "topics", "receipts"],
    changes: [],
    sql: `create function swapped(c uuid, n bigint) returns bigint language sql stable as $f$
        select case when n > 8 or (select count(*) from members m where m.conversation_id = c) > 1 then n
          when n % 2 = 1 then n + 1 else n - 1 end $f$;
      ${inFunction(
        "ingest_batch",
        [
          "when 'accepted' then (j.conversation).last_sequence_number",
          "when 'accepted' then swapped(j.conversation_id, (j.conversation).last_sequence_number",
        ],
        [
          "over (partition by j.conversation_id order by j.ord)",
          "over (partition by j.conversation_id order by j.ord))",
        ],
        [
          "select n.conversation_id, max(n.number) as last",
          "select n.conversation_id, max((n.conversation).last_sequence_number) + count(*) as last",
        ],
      )}`,
  },
  {
    name: "serves an old page",
    breaks: "history",
    changes: [
      {
        file: "src/conversations/history.ts",
        from: "return await newestPage(postgres, recent, conversationId, lastNumber, limit);",
        to: "return await newestPage(postgres, recent, conversationId, Math.max(1, lastNumber - 2), limit);",
      },
    ],
  },
  {
    name: "shows a message as it was before its edit",
    breaks: "history",
    changes: [
      {
        file: "src/model/event.ts",
        from: "if (row.edited_at !== null) json +=",
        to: "if (row.edited_at !== null && row.sequence_number % 2 === 0) json +=",
      },
    ],
  },
  {
    name: "lets cursors fall",
    breaks: "receipts",
    changes: [],
    sql: inFunction("move_cursors", [
      "set delivered = greatest(b.delivered, p_delivered, p_read), read = greatest(b.read, p_read)",
      "set delivered = greatest(p_delivered, p_read), read = p_read",
    ]),
  },
  {
    name: "delivers to a member who was removed",
    breaks: "members",
    changes: [
      {
        file: "src/deliver/room.ts",
        from: "if (event.removed_user_id === subscriber.userId",
        to: "if (event.sequence_number < 0 && event.removed_user_id === subscriber.userId",
      },
    ],
  },
  ...(
    [
      [
        "leaves an event out",
        'return event.sequence_number === 3 ? "sent" : this.#socket.write(messageFrame(event));',
      ],
      [
        "sends an event twice",
        "if (event.sequence_number === 3) this.#socket.write(messageFrame(event)); return this.#socket.write(messageFrame(event));",
      ],
      [
        "sends two events the wrong way round",
        `if (event.sequence_number === 3) { this.kept = event; return "sent"; }
         const outcome = this.#socket.write(messageFrame(event));
         if (this.kept !== undefined) this.#socket.write(messageFrame(this.kept));
         this.kept = undefined;
         return outcome;`,
      ],
      [
        "sends other content",
        `return this.#socket.write(event.sequence_number === 3
          ? messageFrame(event).replace('"created_at":"20', '"created_at":"19') : messageFrame(event));`,
      ],
    ] as const
  ).map(
    ([what, to]): SeededDefect => ({
      name: `a socket ${what}`,
      breaks: "streams",
      changes: [
        {
          file: "src/deliver/socket-subscription.ts",
          from: "return this.#socket.write(messageFrame(event));",
          to,
        },
      ],
    }),
  ),
  {
    name: "the poller drops an event",
    breaks: "topics",
    changes: publishing("encoded.filter(({ message }) => message.sequence_number !== 3)"),
  },
  {
    name: "the poller publishes a batch the wrong way round",
    breaks: "topics",
    changes: publishing("encoded.toReversed()"),
  },
  {
    name: "the router loses an event",
    breaks: "topics",
    changes: [
      {
        file: "src/router/route-batch.ts",
        from: "reached.set(conversationId, sequenceNumber);\n    return true;",
        to: "reached.set(conversationId, sequenceNumber);\n    return sequenceNumber !== 3;",
      },
    ],
  },
  {
    name: "the router lets the order slip",
    breaks: "topics",
    changes: [
      {
        file: "src/router/route-batch.ts",
        from: "{ topic, partition, signal }, chosen,",
        to: "{ topic, partition, signal }, chosen.toReversed(),",
      },
    ],
  },
  {
    name: "the router writes to another partition",
    breaks: "topics",
    changes: [
      {
        file: "src/router/route-batch.ts",
        from: "{ topic, partition, signal }, chosen,",
        to: "{ topic, partition: 1 - (partition % 2), signal }, chosen,",
      },
    ],
  },
  {
    name: "a message ends as a dead letter",
    breaks: "delivered",
    changes: [],
    sql: `create function park_third() returns trigger language plpgsql as $f$ begin
        insert into dead_letters (stage, conversation_id, sequence_number, reason, tries, record)
        values ('router', new.conversation_id, new.sequence_number, 'defect', 1, '{}');
        return new;
      end $f$;
      create trigger park_third after insert on messages for each row
        when (new.sequence_number = 3) execute function park_third();`,
  },
  {
    name: "nobody polls a shard",
    breaks: "stuck",
    mayBreak: ["topics", "delivered"],
    changes: [],
    sql: inFunction("claim_shards", [
      "from shard_leases l where l.owner = p_poller_id order by l.shard;",
      "from shard_leases l where l.owner = p_poller_id and l.shard <> 1 order by l.shard;",
    ]),
  },
  {
    name: "a consumer stops",
    breaks: "stuck",
    mayBreak: ["topics", "delivered"],
    changes: [
      {
        file: "src/router/route-batch.ts",
        from: "let done = 0;\n  while",
        to: "let done = 0;\n  if (batch.partition === 1) return 0;\n  while",
      },
    ],
  },
  {
    name: "an instance ends by itself",
    breaks: "exits",
    // It may do so again once it was healed; then its router has to wait for the group's session.
    mayBreak: ["topics", "delivered", "stuck"],
    changes: [
      {
        file: "src/ingest/accept.ts",
        from: 'state: "enqueued",\n    created_at',
        to: 'state: outcome.outcome === "accepted" && outcome.sequence_number === 30 ? process.exit(3) : "enqueued",\n    created_at',
      },
    ],
  },
];

/** What a poller publishes of a batch, all of which it then removes. */
function publishing(what: string) {
  const file = "src/outbox/drain-batch.ts";
  return [
    {
      file,
      from: "publishPassable(tools.publisher, to, encoded,",
      to: `publishPassable(tools.publisher, to, ${what},`,
    },
    { file, from: "return published.map(({ message }) => message);", to: "return chosen;" },
  ];
}

/** Changes the text of a function as it now is in the database; each `from` must be there once. */
function inFunction(name: string, ...changes: [from: string, to: string][]): string {
  const steps = changes.map(
    ([from, to]) => `
      v_from := $from$${from}$from$;
      if length(v_text) - length(replace(v_text, v_from, '')) <> length(v_from) then
        raise 'not once in ${name}: %', v_from;
      end if;
      v_text := replace(v_text, v_from, $to$${to}$to$);`,
  );
  return `do $do$
    declare
      v_text text := pg_get_functiondef('${name}'::regproc);
      v_from text;
    begin${steps.join("")}
      execute v_text;
    end $do$;`;
}
