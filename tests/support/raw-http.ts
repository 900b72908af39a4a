// Requests that fetch would not send: any bytes for a target, a header or a body, and a body in chunks.
import { connect } from "node:net";
import type { Answer } from "./server.ts";

/** A request as it goes over the wire; `body` in parts is sent with Transfer-Encoding: chunked. */
export interface RawRequest {
  method: string;
  target: string;
  headers?: Record<string, string>;
  body?: Uint8Array | string | readonly (Uint8Array | string)[];
}

/** Sends it on a connection of its own and reads the answer up to the end of the connection. */
export async function rawCall(url: string, request: RawRequest): Promise<Answer> {
  const { hostname, port, host } = new URL(url);
  const socket = connect(Number(port), hostname);
  // What comes after the answer, such as a reset because not all was read, is of no interest.
  socket.on("error", () => undefined);
  const { promise, resolve } = Promise.withResolvers<Buffer>();
  const received: Buffer[] = [];
  socket.on("data", (chunk: Buffer) => received.push(chunk));
  socket.on("close", () => resolve(Buffer.concat(received)));

  const headers = { host, connection: "close", ...framing(request.body), ...request.headers };
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.write(`${request.method} ${request.target} HTTP/1.1\r\n${lines.join("")}\r\n`, "latin1");
  for (const part of wireParts(request.body)) socket.write(part);
  return answerOf(await promise);
}

function framing(body: RawRequest["body"]): Record<string, string> {
  if (body === undefined) return {};
  if (typeof body === "string" || body instanceof Uint8Array)
    return { "content-length": String(Buffer.byteLength(body)) };
  return { "transfer-encoding": "chunked" };
}

function wireParts(body: RawRequest["body"]): (Uint8Array | string)[] {
  if (body === undefined) return [];
  if (typeof body === "string" || body instanceof Uint8Array) return [body];
  const chunks = body.flatMap((part) => [`${Buffer.byteLength(part).toString(16)}\r\n`, part, "\r\n"]);
  return [...chunks, "0\r\n\r\n"];
}

function answerOf(bytes: Buffer): Answer {
  const text = bytes.toString();
  const end = text.indexOf("\r\n\r\n");
  const [statusLine = "", ...lines] = text.slice(0, end).split("\r\n");
  const headers = new Headers(
    lines.map((line): [string, string] => {
      const colon = line.indexOf(":");
      return [line.slice(0, colon), line.slice(colon + 1).trim()];
    }),
  );
  const body = text.slice(end + 4);
  const isJson = /json/.test(headers.get("content-type") ?? "");
  return { status: Number(statusLine.split(" ")[1]), headers, body: isJson ? JSON.parse(body) : body };
}
