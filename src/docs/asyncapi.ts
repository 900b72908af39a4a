// The AsyncAPI document: sockets and topics, from the same schemas that check the frames.
import { type TSchema, Type } from "@sinclair/typebox";
import { type Config, topicNames } from "../config.ts";
import { documentedClientFrames, serverFrames } from "../deliver/frames.ts";
import { eventAnswer } from "../model/answers.ts";
import { build } from "../version.ts";

const eventHeaders = Type.Object(
  {
    ce_specversion: Type.Literal("1.0"),
    ce_id: Type.String({ description: "{conversation_id}:{sequence_number}" }),
    ce_type: Type.String({ description: "e.g. chat4all.message.created.v1" }),
    ce_source: Type.String(),
    ce_subject: Type.String({ description: "The conversation's id." }),
    ce_time: Type.String({ format: "date-time" }),
    "content-type": Type.Literal("application/json"),
    message_id: Type.String({ format: "uuid" }),
    sequence_number: Type.String(),
    traceparent: Type.String({ description: "W3C Trace Context of the request that sent it." }),
    dead_letter_id: Type.Optional(
      Type.String({
        format: "uuid",
        description:
          "Only on the replay of a dead letter: it comes after greater numbers on purpose, and is new unless this id was seen.",
      }),
    ),
  },
  { description: "CloudEvents 1.0, binary mode." },
);

const deadLetterHeaders = Type.Object(
  {
    dead_letter_stage: Type.Union([Type.Literal("outbox"), Type.Literal("router")]),
    dead_letter_reason: Type.String({ description: "Stable, snake_case." }),
    dead_letter_tries: Type.String(),
  },
  {
    additionalProperties: true,
    description: "The record's own, as far as it had any, and why it was parked.",
  },
);

const kafkaKey = { bindings: { kafka: { key: { type: "string", description: "conversation:{id}" } } } };

/** The document, as AsyncAPI 3.0 has it. */
export function asyncApiDocument(config: Config) {
  const topics = topicNames(config);
  const kafkaTopics: Record<string, string> = {
    events: topics.events,
    channel: topics.channel("{name}"),
    outbox: topics.outbox,
    deadLetters: topics.deadLetters,
  };
  const messages = {
    ...messagesOf("client", documentedClientFrames),
    ...messagesOf("server", serverFrames),
    event: { name: "event", payload: eventAnswer, headers: eventHeaders, ...kafkaKey },
    deadLetter: {
      name: "deadLetter",
      payload: { description: "What was parked, as it was; {} when that could not be made or written." },
      headers: deadLetterHeaders,
      ...kafkaKey,
    },
  };
  return {
    asyncapi: "3.0.0",
    info: { title: "Chat4All streams", version: build.version },
    defaultContentType: "application/json",
    channels: {
      stream: {
        address: "/v1/stream",
        description: "A WebSocket of JSON text frames; Authorization: Bearer, or ?access_token=.",
        messages: references(Object.keys(messages).filter((name) => /^(client|server)\./.test(name))),
      },
      ...Object.fromEntries(
        Object.entries(kafkaTopics).map(([name, address]) => [name, kafkaChannel(name, address)]),
      ),
    },
    operations: {
      ...operation(
        "stream",
        "receive",
        "clientFrames",
        Object.keys(documentedClientFrames).map((name) => `client.${name}`),
      ),
      ...operation(
        "stream",
        "send",
        "serverFrames",
        Object.keys(serverFrames).map((name) => `server.${name}`),
      ),
      ...operation("events", "send", "publishEvents", ["event"]),
      ...operation("channel", "send", "publishToChannels", ["event"]),
      ...operation("outbox", "send", "publishOutbox", ["event"]),
      ...operation("deadLetters", "send", "parkDeadLetters", ["deadLetter"]),
    },
    components: { messages },
  };
}

function messagesOf(side: "client" | "server", frames: Record<string, TSchema>) {
  return Object.fromEntries(
    Object.entries(frames).map(([name, payload]) => [`${side}.${name}`, { name, payload }]),
  );
}

function references(names: string[]) {
  return Object.fromEntries(names.map((name) => [name, { $ref: `#/components/messages/${name}` }]));
}

function kafkaChannel(name: string, address: string) {
  const messages = references([name === "deadLetters" ? "deadLetter" : "event"]);
  return name === "channel" ? { address, parameters: { name: {} }, messages } : { address, messages };
}

function operation(channel: string, action: "send" | "receive", name: string, messages: string[]) {
  return {
    [name]: {
      action,
      channel: { $ref: `#/channels/${channel}` },
      messages: messages.map((message) => ({ $ref: `#/channels/${channel}/messages/${message}` })),
    },
  };
}
