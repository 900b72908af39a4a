// What requests may look like, once: validation, OpenAPI and AsyncAPI all come from here.
import { Kind, type TUnsafe, Type, TypeRegistry } from "@sinclair/typebox";

TypeRegistry.Set<{ minLength: number; maxLength: number }>("Text", (schema, value) => {
  if (typeof value !== "string" || value.length < schema.minLength) return false;
  if (value.length <= schema.maxLength) return true;
  return value.length <= 2 * schema.maxLength && [...value].length <= schema.maxLength;
});

TypeRegistry.Set<{ minimum: number; maximum: number }>("NumberText", (schema, value) => {
  if (typeof value !== "string" || !/^(0|[1-9]\d{0,15})$/.test(value)) return false;
  return Number(value) >= schema.minimum && Number(value) <= schema.maximum;
});

/** A whole number as it stands in a path or query: digits only, within bounds; Number() reads it. */
function numberText(minimum: number, maximum: number, description: string): TUnsafe<string> {
  return Type.Unsafe<string>({ [Kind]: "NumberText", type: "integer", minimum, maximum, description });
}

/** A string of so many Unicode code points, which is how JSON Schema counts and TypeBox's String does not. */
function text(minLength: number, maxLength: number, description: string): TUnsafe<string> {
  return Type.Unsafe<string>({ [Kind]: "Text", type: "string", minLength, maxLength, description });
}

const closed = { additionalProperties: false };

/** The largest number a JSON number holds exactly; sequence numbers stay below. */
export const integerMax = Number.MAX_SAFE_INTEGER;

export const uuid = Type.String({
  pattern: "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$",
  description: "a UUID",
});
export const userId = text(1, 128, "Any string of 1 to 128 characters.");
export const sequenceNumber = Type.Integer({ minimum: 0, maximum: integerMax });
const metadata = Type.Object({}, { additionalProperties: true, description: "Any JSON object." });

export const payload = Type.Union(
  [
    Type.Object(
      { type: Type.Literal("text"), text: text(1, 4096, "The words, as people read them.") },
      closed,
    ),
    Type.Object(
      { type: Type.Literal("custom"), data: Type.Unknown({ description: "Any JSON value." }) },
      closed,
    ),
  ],
  { description: "A text, or anything of the application's own." },
);

export const messageBody = Type.Object(
  { message_id: uuid, conversation_id: uuid, payload, metadata: Type.Optional(metadata) },
  closed,
);
export const messageBatchBody = Type.Object(
  {
    messages: Type.Array(Type.Unknown({ description: "As the body of POST /v1/messages." }), {
      minItems: 1,
      maxItems: 500,
    }),
  },
  closed,
);
export const conversationBody = Type.Object(
  {
    kind: Type.Union([Type.Literal("direct"), Type.Literal("group")]),
    members: Type.Array(userId, { maxItems: 1000 }),
    channels: Type.Optional(Type.Array(Type.String({ pattern: "^[a-z0-9-]{1,64}$" }), { maxItems: 16 })),
    metadata: Type.Optional(metadata),
  },
  closed,
);
export const role = Type.Union([Type.Literal("owner"), Type.Literal("member")]);
export const memberBody = Type.Object({ user_id: userId, role: Type.Optional(role) }, closed);
export const changeBody = Type.Object({ payload }, closed);
export const receiptBody = Type.Object(
  { delivered: Type.Optional(sequenceNumber), read: Type.Optional(sequenceNumber) },
  closed,
);
export const userTokenBody = Type.Object(
  {
    scope: Type.Optional(
      Type.String({ maxLength: 200, description: "Of messages:read messages:write; default both." }),
    ),
    expires_in: Type.Optional(Type.Integer({ minimum: 30, maximum: 86_400, description: "Seconds." })),
  },
  closed,
);
const clientCredentials = {
  client_id: Type.Optional(Type.String({ description: "Where the client does not use Basic." })),
  client_secret: Type.Optional(Type.String()),
};
/** For the documents; RFC 6749 lets parameters pass that nobody knows. */
export const oauthTokenBody = Type.Object({
  grant_type: Type.Union([Type.Literal("client_credentials"), Type.Literal("refresh_token")]),
  scope: Type.Optional(Type.String({ description: "Of client_credentials: less than the client may." })),
  refresh_token: Type.Optional(Type.String({ description: "Of refresh_token: good for one use." })),
  ...clientCredentials,
});
export const oauthRevokeBody = Type.Object({
  token: Type.String({ description: "An access or a refresh token." }),
  ...clientCredentials,
});
export const clientBody = Type.Object(
  {
    name: text(1, 128, "What the client is called."),
    scope: Type.Optional(Type.String({ maxLength: 200, description: "Scopes, separated by spaces." })),
  },
  closed,
);

export const conversationParams = Type.Object({ conversation_id: uuid });
export const messageParams = Type.Object({
  conversation_id: uuid,
  sequence_number: numberText(1, integerMax, "The event's number."),
});
export const changeHeaders = Type.Object({ "idempotency-key": Type.Optional(uuid) });
export const memberParams = Type.Object({ conversation_id: uuid, user_id: userId });
export const userParams = Type.Object({ user_id: userId });

export const historyQuery = Type.Object(
  {
    after: Type.Optional(numberText(0, integerMax, "Ascending, from the number after this.")),
    before: Type.Optional(numberText(1, integerMax, "Descending, from the number before this.")),
    limit: Type.Optional(numberText(1, 500, "How many; 50 if not given.")),
  },
  closed,
);
export const eventStreamHeaders = Type.Object({
  "last-event-id": Type.Optional(
    Type.String({ description: "The number that was got last; it counts before `after`." }),
  ),
});
export const eventStreamQuery = Type.Object(
  {
    after: Type.Optional(numberText(0, integerMax, "Begin after this number; from now on if not given.")),
    access_token: Type.Optional(Type.String({ description: "Instead of the Authorization header." })),
  },
  closed,
);
export const listQuery = Type.Object(
  {
    limit: Type.Optional(numberText(1, 100, "How many; 50 if not given.")),
    cursor: Type.Optional(Type.String({ maxLength: 200 })),
  },
  closed,
);
export const deadLetterParams = Type.Object({ id: uuid });
export const deadLetterQuery = Type.Object(
  {
    state: Type.Optional(
      Type.Union(
        ["open", "replayed", "all"].map((state) => Type.Literal(state)),
        { description: "Which ones; open if not given." },
      ),
    ),
    conversation_id: Type.Optional(uuid),
    limit: Type.Optional(numberText(1, 500, "How many; 50 if not given.")),
    cursor: Type.Optional(Type.String({ maxLength: 200 })),
  },
  closed,
);
export const replayBody = Type.Object(
  { conversation_id: Type.Optional(uuid) },
  { ...closed, description: "Of which conversation; of all if not given." },
);
