// What calls answer, for the documents only: the server does not check its own answers against them.
import { Type } from "@sinclair/typebox";
import { eventKinds } from "./event.ts";
import { payload, role, userId, uuid } from "./schemas.ts";

const time = Type.String({ format: "date-time", description: "RFC 3339, UTC." });
const number = Type.Integer({ minimum: 0 });

export const cursorsAnswer = Type.Object({ delivered: number, read: number });

export const eventAnswer = Type.Object(
  {
    event: Type.Union(eventKinds.map((kind) => Type.Literal(kind))),
    conversation_id: uuid,
    sequence_number: number,
    message_id: uuid,
    sender_id: userId,
    payload: Type.Optional(
      Type.Union([payload, Type.Object({ user_id: userId, role: Type.Optional(role) })], {
        description: "What was said; for member events who it is about.",
      }),
    ),
    metadata: Type.Optional(Type.Object({}, { additionalProperties: true })),
    target_sequence_number: Type.Optional(number),
    created_at: time,
  },
  { description: "Something that happened in a conversation." },
);

const historyItemAnswer = Type.Composite([
  eventAnswer,
  Type.Object({ edited_at: Type.Optional(time), deleted_at: Type.Optional(time) }),
]);

export const acceptedAnswer = Type.Object({
  message_id: uuid,
  conversation_id: uuid,
  sequence_number: number,
  state: Type.Literal("enqueued"),
  created_at: time,
  replay: Type.Boolean({ description: "Whether this message_id had been stored before." }),
});

export const batchAnswer = Type.Object({
  results: Type.Array(
    Type.Object(
      { status: Type.Integer() },
      { additionalProperties: true, description: "As of POST /v1/messages, or a problem." },
    ),
  ),
});

const conversationMembers = Type.Array(Type.Object({ user_id: userId, role }));

export const conversationAnswer = Type.Object({
  id: uuid,
  kind: Type.Union([Type.Literal("direct"), Type.Literal("group")]),
  members: conversationMembers,
  channels: Type.Array(Type.String()),
  metadata: Type.Optional(Type.Object({}, { additionalProperties: true })),
  last_sequence_number: number,
  created_by: userId,
  created_at: time,
});

export const conversationListAnswer = Type.Object({
  items: Type.Array(
    Type.Object({
      id: uuid,
      kind: Type.Union([Type.Literal("direct"), Type.Literal("group")]),
      members: Type.Array(Type.Object({ user_id: userId, role }), { description: "At most the first ten." }),
      member_count: number,
      channels: Type.Array(Type.String()),
      metadata: Type.Optional(Type.Object({}, { additionalProperties: true })),
      last_sequence_number: number,
      last_event_at: time,
      last_message: Type.Union([historyItemAnswer, Type.Null()]),
      unread_count: Type.Integer({
        description: "Messages of others after the read cursor; counted up to 1,000.",
      }),
      cursors: cursorsAnswer,
    }),
  ),
  next_cursor: Type.Union([Type.String(), Type.Null()]),
});

export const historyAnswer = Type.Object({ items: Type.Array(historyItemAnswer), has_more: Type.Boolean() });

export const messageAnswer = Type.Composite([
  historyItemAnswer,
  Type.Object({
    state: Type.Union(["enqueued", "published", "delivered", "failed"].map((state) => Type.Literal(state))),
    members: Type.Array(Type.Object({ user_id: userId, delivered: Type.Boolean(), read: Type.Boolean() })),
  }),
]);

export const memberAnswer = Type.Object({ user_id: userId, role, sequence_number: number });

export const tokenAnswer = Type.Object({
  access_token: Type.String(),
  token_type: Type.Literal("Bearer"),
  expires_in: Type.Integer({ description: "Seconds." }),
  scope: Type.String(),
  refresh_token: Type.Optional(Type.String()),
});

export const clientAnswer = Type.Object({
  client_id: Type.String(),
  client_secret: Type.String({ description: "Shown this once." }),
  name: Type.String(),
  scope: Type.String(),
});

export const outboxAnswer = Type.Object({
  pending_rows: number,
  oldest_row_age_seconds: Type.Number(),
  shards: Type.Array(
    Type.Object({
      shard: number,
      pending_rows: number,
      owner: Type.Union([Type.String(), Type.Null()]),
      epoch: number,
    }),
  ),
});

export const deadLetterListAnswer = Type.Object({
  items: Type.Array(
    Type.Object({
      id: uuid,
      stage: Type.Union([Type.Literal("outbox"), Type.Literal("router")]),
      conversation_id: Type.Union([uuid, Type.Null()], {
        description: "Null for a record of no conversation.",
      }),
      sequence_number: Type.Union([number, Type.Null()]),
      reason: Type.String({ description: "Stable, snake_case." }),
      tries: Type.Integer({ minimum: 1, description: "Of all replays together." }),
      parked_at: time,
      replay_requested_at: Type.Union([time, Type.Null()], {
        description: "Set while it is on its way again.",
      }),
      replayed_at: Type.Union([time, Type.Null()]),
    }),
  ),
  next_cursor: Type.Union([Type.String(), Type.Null()]),
});

export const replayAnswer = Type.Object({ id: uuid, state: Type.Literal("enqueued") });

export const replaysAnswer = Type.Object({
  accepted: Type.Integer({ minimum: 0, description: "How many are on their way again." }),
  has_more: Type.Boolean({ description: "Whether to call again for the rest." }),
});

export const healthAnswer = Type.Object({ status: Type.Literal("ok") });

const health = Type.Union(["up", "degraded", "down"].map((state) => Type.Literal(state)));

export const readinessAnswer = Type.Object({
  status: Type.Union(["ok", "degraded", "draining", "unavailable"].map((status) => Type.Literal(status))),
  dependencies: Type.Record(Type.String(), health),
});
