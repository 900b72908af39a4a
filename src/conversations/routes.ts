// The calls about conversations: make, list, read, members, history, receipts.
import { Elysia } from "elysia";
import { describeCall, describeLimitedCall } from "../edge/describe.ts";
import { bodyBytesMax, type Edge, jsonBody } from "../edge/edge.ts";
import type { RateLimits } from "../edge/rate-limits.ts";
import {
  conversationAnswer,
  conversationListAnswer,
  cursorsAnswer,
  historyAnswer,
  memberAnswer,
  messageAnswer,
} from "../model/answers.ts";
import type { EventRow } from "../model/event.ts";
import type { RecentItems } from "../model/recent-items.ts";
import {
  conversationBody,
  conversationParams,
  historyQuery,
  listQuery,
  memberBody,
  memberParams,
  messageParams,
  receiptBody,
} from "../model/schemas.ts";
import type { Postgres } from "../platform/postgres.ts";
import { createConversation, findConversation, listConversations } from "./conversations.ts";
import { readHistory, readMessage } from "./history.ts";
import { addMember, moveCursors, removeMember } from "./members.ts";

/** What these calls need, and where their events and receipts go after the commit. */
export interface ConversationParts {
  postgres: Postgres;
  recent: RecentItems;
  limits: RateLimits;
  channels: readonly string[];
  partitions: number;
  onEvent(event: EventRow): void;
  onReceipt(receipt: { conversationId: string; userId: string; delivered: number; read: number }): void;
}

const tag = "conversations";
const describe = {
  create: describeLimitedCall(
    tag,
    "Makes a conversation",
    { 200: conversationAnswer, 201: conversationAnswer },
    [400, 403, 413, 415],
  ),
  list: describeCall(
    tag,
    "Lists your conversations, latest activity first",
    { 200: conversationListAnswer },
    [400, 403],
  ),
  find: describeCall(tag, "Reads a conversation", { 200: conversationAnswer }, [400, 403, 404]),
  add: describeLimitedCall(tag, "Adds a member", { 201: memberAnswer }, [400, 403, 404, 409, 413, 415]),
  remove: describeLimitedCall(tag, "Removes a member, or leaves", { 204: null }, [400, 403, 404, 409]),
  history: describeCall(tag, "Reads the history", { 200: historyAnswer }, [400, 403, 404]),
  message: describeCall(tag, "Reads one event, with its state", { 200: messageAnswer }, [400, 403, 404]),
  receipts: describeCall(tag, "Moves your cursors", { 200: cursorsAnswer }, [400, 403, 404, 413, 415]),
};

/**
 * Calls that change conversations; scope messages:write. They count as the caller's requests only: owners can always
 * remove whoever floods a conversation.
 */
export function conversationWriteRoutes(edge: Edge, parts: ConversationParts) {
  const { postgres, limits } = parts;
  return new Elysia({ prefix: "/v1/conversations" })
    .use(edge.withCaller("messages:write"))
    .post(
      "",
      async ({ caller, body, set }) => {
        const { created, conversation } = await limits.within({ user: caller.userId }, set.headers, () =>
          createConversation(postgres, parts, caller, body),
        );
        set.status = created ? 201 : 200;
        return conversation;
      },
      { parse: jsonBody(bodyBytesMax.message), body: conversationBody, detail: describe.create },
    )
    .post(
      "/:conversation_id/members",
      async ({ caller, traceparent, params, body, set }) => {
        const id = params.conversation_id.toLowerCase();
        const event = await limits.within({ user: caller.userId }, set.headers, () =>
          addMember(postgres, caller, id, body, traceparent),
        );
        parts.onEvent(event);
        set.status = 201;
        return { user_id: body.user_id, role: body.role ?? "member", sequence_number: event.sequence_number };
      },
      {
        parse: jsonBody(bodyBytesMax.message),
        body: memberBody,
        params: conversationParams,
        detail: describe.add,
      },
    )
    .delete(
      "/:conversation_id/members/:user_id",
      async ({ caller, traceparent, params, set }) => {
        const id = params.conversation_id.toLowerCase();
        const event = await limits.within({ user: caller.userId }, set.headers, () =>
          removeMember(postgres, caller, id, params.user_id, traceparent),
        );
        parts.onEvent(event);
        set.status = 204;
      },
      { parse: "none", params: memberParams, detail: describe.remove },
    );
}

/** Calls that read conversations, and move the reader's own cursors; scope messages:read. */
export function conversationReadRoutes(edge: Edge, parts: ConversationParts) {
  const { postgres } = parts;
  return new Elysia({ prefix: "/v1/conversations" })
    .use(edge.withCaller("messages:read"))
    .get("", ({ caller, query }) => listConversations(postgres, caller, query), {
      query: listQuery,
      detail: describe.list,
    })
    .get(
      "/:conversation_id",
      ({ caller, params }) => findConversation(postgres, caller, params.conversation_id.toLowerCase()),
      { params: conversationParams, detail: describe.find },
    )
    .get(
      "/:conversation_id/messages",
      async ({ caller, params, query }) =>
        json(
          await readHistory(
            postgres,
            parts.recent,
            caller.userId,
            params.conversation_id.toLowerCase(),
            query,
          ),
        ),
      { params: conversationParams, query: historyQuery, detail: describe.history },
    )
    .get(
      "/:conversation_id/messages/:sequence_number",
      async ({ caller, params }) =>
        json(
          await readMessage(
            postgres,
            caller.userId,
            params.conversation_id.toLowerCase(),
            Number(params.sequence_number),
          ),
        ),
      { params: messageParams, detail: describe.message },
    )
    .post(
      "/:conversation_id/receipts",
      async ({ caller, params, body }) => {
        const conversationId = params.conversation_id.toLowerCase();
        const cursors = await moveCursors(postgres, caller, conversationId, body);
        parts.onReceipt({ conversationId, userId: caller.userId, ...cursors });
        return cursors;
      },
      {
        parse: jsonBody(bodyBytesMax.message),
        body: receiptBody,
        params: conversationParams,
        detail: describe.receipts,
      },
    );
}

function json(text: string): Response {
  return new Response(text, { headers: { "content-type": "application/json" } });
}
