// The frames of /v1/stream, once: what is checked here is what the AsyncAPI document shows.
import { type Static, type TObject, type TProperties, Type } from "@sinclair/typebox";
import { type TypeCheck, TypeCompiler } from "@sinclair/typebox/compiler";
import { bodyBytesMax } from "../edge/edge.ts";
import { problemOf, schemaProblem } from "../edge/problems.ts";
import { eventAnswer } from "../model/answers.ts";
import { Problem } from "../model/errors.ts";
import { payload, sequenceNumber, userId, uuid } from "../model/schemas.ts";
import { checkValue } from "../platform/json.ts";
import type { LiveEvent } from "./live.ts";

const ref = Type.Union([Type.String({ minLength: 1, maxLength: 128 }), Type.Integer()], {
  description: "Chosen by the client; comes back on the answer.",
});
type Ref = Static<typeof ref>;
const anyRef = { ref: Type.Optional(ref) };
const counted = Type.Integer({ minimum: 0 });

const frame = <Name extends string, Properties extends TProperties>(name: Name, properties: Properties) =>
  Type.Object({ type: Type.Literal(name), ...properties }, { additionalProperties: false });

/** What a client may send. */
export const clientFrames = {
  subscribe: frame("subscribe", { ...anyRef, conversation_id: uuid, after: Type.Optional(sequenceNumber) }),
  unsubscribe: frame("unsubscribe", { ...anyRef, conversation_id: uuid }),
  // The payload is left to ingest, which checks it the same way for every way in.
  send: frame("send", { ref, message_id: uuid, conversation_id: uuid, payload: Type.Unknown() }),
  receipt: frame("receipt", {
    ...anyRef,
    conversation_id: uuid,
    delivered: Type.Optional(sequenceNumber),
    read: Type.Optional(sequenceNumber),
  }),
  typing: frame("typing", { ...anyRef, conversation_id: uuid }),
  ping: frame("ping", anyRef),
};

/** A checked frame of a client. */
export type ClientFrame = {
  [Name in keyof typeof clientFrames]: Static<(typeof clientFrames)[Name]>;
}[keyof typeof clientFrames];

/** `clientFrames` as documents show them: with the payload in full. */
export const documentedClientFrames = {
  ...clientFrames,
  send: frame("send", { ref, message_id: uuid, conversation_id: uuid, payload }),
};

/** What the server sends. */
export const serverFrames = {
  hello: frame("hello", { user_id: userId }),
  subscribed: frame("subscribed", { ...anyRef, conversation_id: uuid, last_sequence_number: counted }),
  unsubscribed: frame("unsubscribed", {
    ...anyRef,
    conversation_id: uuid,
    code: Type.Union([
      Type.Literal("requested"),
      Type.Literal("member_removed"),
      Type.Literal("unavailable"),
    ]),
  }),
  message: Type.Object({ type: Type.Literal("message"), ...eventAnswer.properties }),
  ack: frame("ack", { ref, sequence_number: counted, replay: Type.Boolean() }),
  receipt: frame("receipt", {
    ...anyRef,
    conversation_id: uuid,
    user_id: userId,
    delivered: counted,
    read: counted,
  }),
  typing: frame("typing", { conversation_id: uuid, user_id: userId }),
  presence: frame("presence", {
    conversation_id: uuid,
    user_id: userId,
    status: Type.Union([Type.Literal("online"), Type.Literal("offline")]),
  }),
  error: frame("error", {
    ...anyRef,
    status: Type.Integer(),
    code: Type.String(),
    detail: Type.String(),
    conversation_id: Type.Optional(uuid),
  }),
  pong: frame("pong", anyRef),
};

type ServerFrame = { [Name in keyof typeof serverFrames]: Static<(typeof serverFrames)[Name]> }[Exclude<
  keyof typeof serverFrames,
  "message"
>];

/** The text of a frame; members that are undefined are left out. */
export function encodeFrame(
  serverFrame: { [Key in keyof ServerFrame]: ServerFrame[Key] } & ServerFrame,
): string {
  return JSON.stringify(serverFrame);
}

let lastFramed: LiveEvent | undefined;
let lastText = "";

/** The text of an event's frame; made once for all subscribers that it goes to in a row. */
export function messageFrame(event: LiveEvent): string {
  if (event !== lastFramed) {
    lastFramed = event;
    lastText = `{"type":"message",${event.json.slice(1)}`;
  }
  return lastText;
}

/** What is known of a frame that is refused. */
export interface FrameContext {
  ref?: Ref;
  conversation_id?: string;
}

const checks = new Map<string, TypeCheck<TObject>>(
  Object.entries(clientFrames).map(([name, schema]) => [name, TypeCompiler.Compile(schema as TObject)]),
);

/**
 * Reads a frame; ids leave in lower case. Throws Problem 400 with what is wrong, or 413 beyond what a request may
 * have, and notes in `context` what it got.
 */
export function decodeFrame(data: string | Uint8Array, context: FrameContext): ClientFrame {
  const value = parseObject(data);
  if (isRef(value["ref"])) context.ref = value["ref"];
  if (Buffer.byteLength(data) > bodyBytesMax.message) {
    throw new Problem(413, "body_too_large", `A frame has more than ${bodyBytesMax.message} bytes.`);
  }
  checkValue(value);
  const check = checks.get(String(value["type"]));
  if (check === undefined) throw badFrame("`type` must be one of the known frames.");
  if (!check.Check(value)) throw schemaProblem(check.Errors(value));
  const checked = value as ClientFrame;
  if ("conversation_id" in checked) {
    checked.conversation_id = checked.conversation_id.toLowerCase();
    context.conversation_id = checked.conversation_id;
  }
  return checked;
}

/** The error frame for whatever was thrown while a frame was dealt with. */
export function errorFrame(error: unknown, context: FrameContext): { problem: Problem; text: string } {
  const problem =
    problemOf("", error) ?? new Problem(500, "internal_error", "Something went wrong here; a retry is safe.");
  const { status, code } = problem;
  const detail = problem.errors === undefined ? problem.detail : `${problem.detail} ${faultsText(problem)}`;
  return { problem, text: encodeFrame({ type: "error", ...context, status, code, detail }) };
}

function faultsText(problem: Problem): string {
  return (problem.errors ?? []).map(({ path, message }) => `${path || "/"}: ${message}.`).join(" ");
}

function parseObject(data: string | Uint8Array): Record<string, unknown> {
  if (typeof data !== "string") throw badFrame("A frame is text.");
  let value: unknown;
  try {
    value = JSON.parse(data);
  } catch (cause) {
    throw badFrame("A frame is one JSON object.", cause);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw badFrame("A frame is one JSON object.");
  return value as Record<string, unknown>;
}

function isRef(value: unknown): value is Ref {
  if (typeof value === "number") return Number.isSafeInteger(value);
  return typeof value === "string" && value.length > 0 && value.length <= 128 && value.isWellFormed();
}

function badFrame(detail: string, cause?: unknown): Problem {
  return new Problem(400, "bad_frame", detail, { cause });
}
