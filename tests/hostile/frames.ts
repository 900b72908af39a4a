// Frames of /v1/stream, made from the AsyncAPI document and spoilt, and talks in which they are sent.
import { Ajv2020, type ValidateFunction } from "ajv/dist/2020";
import addFormats from "ajv-formats";
import * as fc from "fast-check";
import { webSocketLimits } from "../../src/deliver/websocket.ts";
import { until } from "../support/until.ts";
import {
  type Bytes,
  type Known,
  oddText,
  type Schema,
  spoil,
  spoiling,
  textSpoilings,
  valueOf,
} from "./values.ts";

/** As much of an AsyncAPI document as is used here. */
export interface FramesDocument {
  components: { messages: Record<string, { payload: Schema }> };
}

/** A frame as it is sent: text, or binary. */
export type Frame = Bytes;

/** Frames of every kind that a client may send; a third is as the document asks for. */
export function framesFor(document: FramesDocument, known: Known): fc.Arbitrary<Frame> {
  const good = fc.oneof(
    ...schemasOf(document, "client.").map(([, schema]) => valueOf(schema, knownInFrames(known))),
  );
  const frames = fc.oneof(
    { weight: 6, arbitrary: good.map((value) => JSON.stringify(value)) },
    {
      weight: 6,
      arbitrary: fc.tuple(good, spoiling).map(([value, one]) => JSON.stringify(spoil(value, one)) ?? "null"),
    },
    {
      weight: 4,
      arbitrary: fc
        .tuple(good, fc.constantFrom(...textSpoilings))
        .map(([value, change]) => change(JSON.stringify(value))),
    },
    { weight: 2, arbitrary: fc.oneof(oddText, fc.json({ maxDepth: 2 }), fc.uint8Array({ maxLength: 200 })) },
  );
  // Beyond that a socket is closed with 1009 (RFC 6455, 7.4.1): raw-bytes.ts has such frames.
  return frames.filter((frame) => Buffer.byteLength(frame) <= webSocketLimits.maxPayloadLength);
}

function knownInFrames(known: Known): Known {
  const number = fc.integer({ min: 0, max: 12 });
  return { ...known, after: number, delivered: number, read: number, ref: fc.oneof(fc.uuid(), fc.nat()) };
}

/** What came of a talk. */
export interface Talk {
  received: { type: string; replay?: boolean; status?: number; [member: string]: unknown }[];
  closeCode: number | undefined;
}

/** What answers a frame, if it is not typing, which nobody answers when it is right. */
const answerTypes = new Set(["subscribed", "unsubscribed", "ack", "receipt", "error", "pong"]);
const deadlineMs = 20_000;

/** How many frames of a talk were answered. */
export function answersIn({ received }: Talk): number {
  return received.filter(({ type }) => answerTypes.has(type)).length;
}

/** How many frames may go without an answer. */
export function unansweredMax(frames: readonly Frame[]): number {
  return frames.filter((frame) => typeof frame === "string" && frame.includes("typing")).length;
}

/**
 * Opens a socket, sends the frames and waits until each is answered or the socket is closed; the last is a
 * receipt without numbers in each of these conversations, whose answer comes after those of all frames before. Closes
 * with its subscriptions open. Throws when an answer is missing.
 */
export async function talk(
  url: string,
  token: string,
  frames: readonly Frame[],
  conversations: readonly string[],
): Promise<Talk> {
  const done: Talk = { received: [], closeCode: undefined };
  const socket = new WebSocket(`${url.replace(/^http/, "ws")}/v1/stream`, {
    headers: { authorization: `Bearer ${token}` },
  });
  socket.addEventListener("message", ({ data }) => done.received.push(JSON.parse(String(data))));
  socket.addEventListener("close", ({ code }) => {
    done.closeCode = code;
  });
  const isClosed = () => done.closeCode !== undefined;
  await until(() => isClosed() || done.received.length > 0, "the socket says hello", deadlineMs);
  for (const frame of frames) socket.send(frame);
  for (const conversation_id of conversations)
    socket.send(JSON.stringify({ type: "receipt", ref: "the end", conversation_id }));
  const answersMin = frames.length + conversations.length - unansweredMax(frames);
  const areAnswered = () =>
    answersIn(done) >= answersMin &&
    done.received.filter(({ type, ref }) => type === "receipt" && ref === "the end").length >=
      conversations.length;
  await until(() => isClosed() || areAnswered(), "each frame is answered", deadlineMs);
  if (!isClosed()) socket.close(1000);
  await until(isClosed, "the socket is closed", deadlineMs);
  return done;
}

/** Throws for a frame that is not as the document says. */
export function serverFrameChecker(document: FramesDocument): (frame: Talk["received"][number]) => void {
  const ajv = addFormats(new Ajv2020({ strict: false }));
  const validators = new Map<string, ValidateFunction>(
    schemasOf(document, "server.").map(([name, schema]) => [name, ajv.compile(schema)]),
  );
  return (frame) => {
    const validate = validators.get(frame.type);
    if (validate?.(frame) !== true)
      throw new Error(`${JSON.stringify(frame)} is not as documented: ${ajv.errorsText(validate?.errors)}`);
    if (frame.type === "error" && (frame.status ?? 500) >= 500)
      throw new Error(`the server's own error: ${JSON.stringify(frame)}`);
  };
}

function schemasOf(document: FramesDocument, prefix: string): [string, Schema][] {
  return Object.entries(document.components.messages)
    .filter(([name]) => name.startsWith(prefix))
    .map(([name, { payload }]) => [name.slice(prefix.length), payload]);
}
