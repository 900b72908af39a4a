// How the stages meet: what happens straight after a commit, and what a socket may do.
import { TypeCompiler } from "@sinclair/typebox/compiler";
import { moveCursors } from "./conversations/members.ts";
import type { Hub } from "./deliver/hub.ts";
import { type LiveEvent, liveEvent } from "./deliver/live.ts";
import type { StreamDependencies } from "./deliver/websocket.ts";
import { checked } from "./edge/problems.ts";
import type { RateLimits } from "./edge/rate-limits.ts";
import { authenticate } from "./identity/authenticate.ts";
import type { Revocations } from "./identity/revocation.ts";
import type { Tokens } from "./identity/tokens.ts";
import { acceptMessage, readMessageBody } from "./ingest/accept.ts";
import type { Collector, Committed, OnCommitted } from "./ingest/collector.ts";
import type { EventRow } from "./model/event.ts";
import { receiptBody } from "./model/schemas.ts";
import { conversationKey, partitionOf } from "./platform/murmur2.ts";
import type { Postgres } from "./platform/postgres.ts";
import { traceparentOf } from "./platform/trace.ts";

const receiptCheck = TypeCompiler.Compile(receiptBody);

/** Tells who waits for a commit: sockets at once, then the outbox poller. */
export interface Announcer {
  committed: OnCommitted;
  event(event: EventRow): void;
  receipt(receipt: { conversationId: string; userId: string; delivered: number; read: number }): void;
}

/** Builds the announcer of one instance. */
export function announcer(
  hub: Hub,
  workers: { wake(shards: Iterable<number>): void },
  shards: number,
): Announcer {
  return {
    committed(accepted) {
      hub.publish(accepted.map(createdEvent));
      workers.wake(new Set(accepted.map(({ outcome }) => outcome.shard)));
    },
    event(event) {
      hub.publish([liveEvent(event)]);
      workers.wake([partitionOf(conversationKey(event.conversation_id), shards)]);
    },
    receipt({ conversationId, userId, delivered, read }) {
      hub.signal({
        conversation_id: conversationId,
        frame: JSON.stringify({
          type: "receipt",
          conversation_id: conversationId,
          user_id: userId,
          delivered,
          read,
        }),
      });
    },
  };
}

function createdEvent({ message, outcome }: Committed): LiveEvent {
  return liveEvent({
    event: "message.created",
    conversation_id: message.conversationId,
    sequence_number: outcome.sequence_number,
    message_id: message.messageId,
    sender_id: message.senderId,
    payload: message.payload,
    metadata: message.metadata,
    target_sequence_number: null,
    created_at: outcome.created_at,
  });
}

/** What sockets and event streams may use of the other stages. */
export function streamDependencies(parts: {
  tokens: Tokens;
  revocations: Revocations;
  collector: Collector;
  limits: RateLimits;
  postgres: Postgres;
}): Pick<StreamDependencies, "authenticate" | "isRevoked" | "send" | "moveCursors"> {
  const { tokens, revocations, collector, limits, postgres } = parts;
  return {
    authenticate: (request) => authenticate(tokens, request),
    isRevoked: (caller) => revocations.isRevoked(caller),
    async send(caller, body) {
      const message = readMessageBody(body);
      const countedFor = { user: caller.userId, conversation: message.conversation_id };
      return await limits.within(countedFor, undefined, () =>
        acceptMessage(collector, caller, message, traceparentOf(null)),
      );
    },
    async moveCursors(caller, conversationId, body) {
      // The socket tells the others itself: it leaves itself out.
      return await moveCursors(postgres, caller, conversationId, checked(receiptCheck, body));
    },
  };
}
