// Bytes on a connection of their own, and whatever comes back: one answer, several, an end without any, or silence.
import { connect } from "node:net";
import type { Answer } from "../support/server.ts";
import type { Bytes } from "./values.ts";

/** What came back. */
export interface Exchange {
  answers: Answer[];
  /** How it ended: closed by the server, an answer without an end, or nothing for a while. */
  end: "closed" | "streaming" | "silent";
  /** All that came, as Latin-1. */
  text: string;
}

const deadlineMs = 20_000;

/**
 * Sends the parts and reads until the connection ends, an event stream or socket has begun, or, where `silenceMs` is
 * given, nothing came for so long. With `isSocket`, the first part is the handshake of a
 * socket: the others wait for its answer, and what comes after that is waited for, too.
 */
export async function exchange(
  url: string,
  parts: readonly Bytes[],
  {
    silenceMs = deadlineMs,
    hangUp = false,
    isSocket = false,
  }: { silenceMs?: number; hangUp?: boolean; isSocket?: boolean } = {},
): Promise<Exchange> {
  const { hostname, port } = new URL(url);
  const received: Buffer[] = [];
  const { promise, resolve } = Promise.withResolvers<Exchange["end"]>();
  const socket = connect(Number(port), hostname);
  // What comes after the answer, such as a reset because not all was read, is of no interest.
  socket.on("error", () => undefined);
  socket.on("close", () => resolve("closed"));
  let timer = setTimeout(() => resolve("silent"), silenceMs);
  // What goes on for ever is not waited for, whatever it is.
  const deadline = setTimeout(() => resolve("silent"), deadlineMs);
  socket.on("data", (chunk: Buffer) => {
    received.push(chunk);
    clearTimeout(timer);
    timer = setTimeout(() => resolve("silent"), silenceMs);
    if (!isSocket && isEndless(received)) resolve("streaming");
  });
  const [first, ...others] = parts;
  if (first !== undefined) socket.write(first);
  // A client sends no frame before its handshake was answered (RFC 6455, 4.1).
  if (isSocket) await Promise.race([promise, new Promise((answered) => socket.once("data", answered))]);
  for (const part of others) socket.write(part);
  if (hangUp) socket.end();
  const end = await promise;
  clearTimeout(timer);
  clearTimeout(deadline);
  socket.destroy();
  const all = Buffer.concat(received);
  return { answers: answersIn(all), end, text: all.toString("latin1") };
}

/** A request as `exchange` sends it; a body in parts goes in chunks. */
export function requestBytes(request: {
  method: string;
  target: string;
  headers: readonly (readonly [string, string])[];
  body?: Bytes | readonly Bytes[] | undefined;
}): Bytes[] {
  const { method, target, headers, body } = request;
  const isWhole = typeof body === "string" || body instanceof Uint8Array;
  const framing = isWhole ? [["content-length", String(Buffer.byteLength(body))]] : [];
  if (Array.isArray(body)) framing.push(["transfer-encoding", "chunked"]);
  const lines = [["connection", "close"], ...framing, ...headers].map(
    ([name, value]) => `${name}: ${value}\r\n`,
  );
  const head = Buffer.from(`${method} ${target} HTTP/1.1\r\n${lines.join("")}\r\n`, "latin1");
  if (body === undefined) return [head];
  if (isWhole) return [head, body];
  const chunks = body.flatMap((part) => [`${Buffer.byteLength(part).toString(16)}\r\n`, part, "\r\n"]);
  return [head, ...chunks, "0\r\n\r\n"];
}

/** Whether the head is whole, and of an answer that does not end. */
function isEndless(received: Buffer[]): boolean {
  const start = Buffer.concat(received.slice(0, 4)).toString("latin1");
  const [head = "", rest] = start.replace("HTTP/1.1 100 Continue\r\n\r\n", "").split("\r\n\r\n", 2);
  if (rest === undefined) return false;
  return head.startsWith("HTTP/1.1 101 ") || /^content-type: text\/event-stream/im.test(head);
}

function answersIn(bytes: Buffer): Answer[] {
  const answers: Answer[] = [];
  let rest = bytes;
  while (rest.length > 0) {
    const end = rest.indexOf("\r\n\r\n");
    if (end === -1) break;
    const [statusLine = "", ...lines] = rest.subarray(0, end).toString().split("\r\n");
    const headers = new Headers();
    for (const line of lines) {
      const colon = line.indexOf(":");
      headers.append(line.slice(0, colon), line.slice(colon + 1).trim());
    }
    const length = Number(headers.get("content-length") ?? 0);
    const text = rest.subarray(end + 4, end + 4 + length).toString();
    const isJson = /json/.test(headers.get("content-type") ?? "") && text !== "";
    const status = Number(statusLine.split(" ")[1]);
    // 100 is no answer yet.
    if (status !== 100) answers.push({ status, headers, body: isJson ? JSON.parse(text) : text });
    if (status === 101) break;
    rest = rest.subarray(end + 4 + length);
  }
  return answers;
}
