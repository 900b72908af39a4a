// What clients say: messages of every size and kind, and those that must be refused. Everything from one seed.
import type { Random } from "../../support/random.ts";
import { type Conversation, type Post, saidDigest } from "../history.ts";
import type { World } from "./world.ts";

/** A post and the body that carries it. */
export interface Letter {
  post: Post;
  body: { message_id: string; conversation_id: string; payload: unknown; metadata?: unknown };
}

const hotShare = 0.15;
const longText = 4_096;
const tooLargeBytes = 70_000;
const words =
  'the quick brown fox jumps over a lazy dog and \u{1f600} naïve “quotes” <b>&amp;</b> \\ " \n\t'.split(" ");

/** Anything that its sender may post; `by`: who, where they may be anybody. */
export function composeMessage(world: World, conversation: Conversation, by: string): Letter {
  const { random } = world;
  const kind = random.next();
  const payload = kind < 0.15 ? { type: "custom", data: customData(random) } : textPayload(random);
  const metadata = kind > 0.9 ? { tag: random.pick(words), number: random.between(0, 1e9) } : undefined;
  return letter(conversation.id, by, uuidOf(random), payload, metadata);
}

/** A post that must be refused, and never be stored. `known`: one that is stored, whose id is used again. */
export function composeForbidden(world: World, known: Letter | undefined): Letter {
  const { random } = world;
  const conversation = pickConversation(world);
  const member = random.pick(conversation.memberIds);
  const ways = ["not a member", "malformed", "too large", "another body"] as const;
  let forbidden = random.pick(ways);
  const outsider = world.users.find((user) => !conversation.memberIds.includes(user));
  if (forbidden === "not a member" && outsider === undefined) forbidden = "malformed";
  if (forbidden === "another body" && known === undefined) forbidden = "too large";
  const made = (by: string, payload: unknown) => letter(conversation.id, by, uuidOf(random), payload);
  const named = (one: Letter) => ({ ...one, post: { ...one.post, forbidden } });

  switch (forbidden) {
    case "not a member":
      return named(made(outsider ?? member, textPayload(random)));
    case "malformed":
      return named(made(member, random.pick(malformedPayloads)));
    case "too large":
      return named(made(member, { type: "custom", data: "x".repeat(tooLargeBytes) }));
    case "another body": {
      const { post, body } = known as Letter;
      const payload = { type: "text", text: `another body for ${body.message_id}` };
      return named(letter(post.conversationId, post.senderId, post.key, payload));
    }
  }
}

/** Mostly the hot one, or any. */
export function pickConversation({ random, hot, conversations }: World): Conversation {
  return random.next() < hotShare ? hot : random.pick(conversations);
}

/** A UUID of version 4 from the seed. */
export function uuidOf(random: Random): string {
  const hex = (digits: number) =>
    Math.floor(random.next() * 16 ** digits)
      .toString(16)
      .padStart(digits, "0");
  return `${hex(8)}-${hex(4)}-4${hex(3)}-a${hex(3)}-${hex(6)}${hex(6)}`;
}

/** Some words, and once in a while as many as there may be. */
export function textPayload(random: Random): { type: "text"; text: string } {
  if (random.next() < 0.002) return { type: "text", text: "x".repeat(longText) };
  const text = Array.from({ length: random.between(1, 25) }, () => random.pick(words)).join(" ");
  return { type: "text", text: text.trim() === "" ? "-" : text };
}

const malformedPayloads: unknown[] = [
  { type: "text" },
  { type: "text", text: "" },
  { type: "text", text: "x".repeat(longText + 1) },
  { type: "picture", url: "x" },
  { type: "text", text: "a", more: 1 },
  null,
];

function letter(
  conversationId: string,
  senderId: string,
  messageId: string,
  payload: unknown,
  metadata?: unknown,
): Letter {
  const event = "message.created";
  const said = saidDigest({ event, message_id: messageId, sender_id: senderId, payload, metadata });
  return {
    post: { kind: event, conversationId, senderId, key: messageId, said, tries: [] },
    body: {
      message_id: messageId,
      conversation_id: conversationId,
      payload,
      ...(metadata === undefined ? {} : { metadata }),
    },
  };
}

function customData(random: Random): unknown {
  return {
    number: random.between(-1e6, 1e6),
    nested: [null, true, { text: random.pick(words) }, 1.5],
    "": [],
  };
}
