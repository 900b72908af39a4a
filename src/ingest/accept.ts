// From a caller's body to a stored message: the one way in, for HTTP, batches and sockets alike.
import type { Static } from "@sinclair/typebox";
import { TypeCompiler } from "@sinclair/typebox/compiler";
import { checked } from "../edge/problems.ts";
import type { Caller } from "../identity/caller.ts";
import { revokedToken } from "../identity/tokens.ts";
import { noConversation, notMember, Problem } from "../model/errors.ts";
import { messageBody } from "../model/schemas.ts";
import type { Collector, IngestOutcome } from "./collector.ts";

/** A body that the schema has passed. */
export type MessageBody = Static<typeof messageBody>;

/** What POST /v1/messages answers. */
export interface AcceptedMessage {
  message_id: string;
  conversation_id: string;
  sequence_number: number;
  state: "enqueued";
  created_at: string;
  replay: boolean;
}

const messageCheck = TypeCompiler.Compile(messageBody);

/** A body that has not passed a route's schema; throws Problem 400 unless it is a message. */
export function readMessageBody(body: unknown): MessageBody {
  return checked(messageCheck, body);
}

/** Stores a message once; throws Problem 401, 403, 404, 422 or 503. */
export async function acceptMessage(
  collector: Collector,
  caller: Caller,
  body: MessageBody,
  traceparent: string,
): Promise<AcceptedMessage> {
  const conversationId = body.conversation_id.toLowerCase();
  const messageId = body.message_id.toLowerCase();
  const outcome = await collector.accept({
    conversationId,
    senderId: caller.userId,
    messageId,
    payload: JSON.stringify(body.payload),
    metadata: body.metadata === undefined ? null : JSON.stringify(body.metadata),
    traceparent,
    tokenIds: caller.tokenIds,
  });
  return {
    message_id: messageId,
    conversation_id: conversationId,
    sequence_number: acceptedNumber(outcome),
    state: "enqueued",
    created_at: outcome.created_at.toISOString(),
    replay: outcome.outcome === "replayed",
  };
}

function acceptedNumber(outcome: IngestOutcome): number {
  switch (outcome.outcome) {
    case "accepted":
    case "replayed":
      return outcome.sequence_number;
    case "reused":
      throw new Problem(
        422,
        "message_id_reused",
        "This message_id was sent before with another payload or metadata.",
      );
    case "not_member":
      throw notMember();
    case "no_conversation":
      throw noConversation();
    case "revoked":
      throw revokedToken();
  }
}
