// Bytes that no client library would send: heads that are no HTTP, handshakes that are none, frames that break
// RFC 6455. Each may carry one message, whole and with a good token, which is stored or not; never refused and stored.
import * as fc from "fast-check";
import type { Bytes } from "./values.ts";

/** What is needed to make them. */
export interface RawSettings {
  host: string;
  token: string;
  conversationId: string;
}

/** Some bytes for a connection of their own. */
export interface RawInput {
  kind: "http" | "handshake" | "frames";
  parts: Bytes[];
  /** Whether the connection's other half is closed after them. */
  hangUp: boolean;
}

/** Inputs of every kind. */
export function rawInputs(settings: RawSettings): fc.Arbitrary<RawInput> {
  return fc.oneof(
    { weight: 4, arbitrary: rawHttp(settings) },
    { weight: 2, arbitrary: rawHandshake(settings) },
    { weight: 4, arbitrary: rawFrames(settings) },
  );
}

const message = (messageId: string, { conversationId }: RawSettings) => ({
  message_id: messageId,
  conversation_id: conversationId,
  payload: { type: "text", text: "raw" },
});

type Head = (lines: { request: string; headers: string[]; body: string }) => string;

const assembled: Head = ({ request, headers, body }) =>
  `${request}\r\n${headers.join("\r\n")}\r\n\r\n${body}`;
const withHeader =
  (...more: string[]): Head =>
  ({ headers, ...rest }) =>
    assembled({ ...rest, headers: [...headers, ...more] });
const withRequest =
  (request: string): Head =>
  (lines) =>
    assembled({ ...lines, request });

const heads: readonly Head[] = [
  assembled,
  (lines) => assembled(lines).replaceAll("\r\n", "\n"),
  (lines) => assembled(lines).replaceAll("\r\n", "\r"),
  (lines) => `\r\n\r\n${assembled(lines)}`,
  (lines) => `${assembled(lines)}${assembled(lines)}`,
  (lines) => `${assembled(lines)}GARBAGE\0\r\n\r\n`,
  (lines) => assembled(lines).slice(0, -5),
  (lines) => assembled({ ...lines, headers: lines.headers.filter((line) => !line.startsWith("host")) }),
  (lines) => assembled({ ...lines, headers: lines.headers.map((line) => line.replace(":", " :")) }),
  (lines) =>
    assembled({ ...lines, headers: lines.headers.map((line) => line.replace(": ", ":\r\n folded ")) }),
  withHeader("host: other.example"),
  withHeader("content-length: 5"),
  withHeader("content-length: -1"),
  withHeader("content-length: 0x10"),
  withHeader("content-length: 99999999999999999999"),
  withHeader("content-length: 1, 2"),
  withHeader("transfer-encoding: chunked"),
  withHeader("transfer-encoding: gzip, chunked"),
  withHeader("transfer-encoding: \vchunked"),
  withHeader("no colon here"),
  withHeader(": no name"),
  withHeader("x\0y: nul"),
  withHeader(`x: ${"y".repeat(20_000)}`),
  withHeader(...Array.from({ length: 300 }, (_, at) => `x-${at}: y`)),
  withHeader("upgrade: websocket", "connection: upgrade"),
  withHeader("authorization: Bearer x"),
  withRequest("POST /v1/messages"),
  withRequest("POST  /v1/messages HTTP/1.1"),
  withRequest("POST /v1/messages HTTP/9.9"),
  withRequest("POST /v1/messages HTTP/1.0"),
  withRequest("post /v1/messages HTTP/1.1"),
  withRequest("P\0ST /v1/messages HTTP/1.1"),
  withRequest("POST http://other.example/v1/messages HTTP/1.1"),
  withRequest("POST * HTTP/1.1"),
  withRequest("POST v1/messages HTTP/1.1"),
  withRequest("CONNECT other.example:443 HTTP/1.1"),
  withRequest("PRI * HTTP/2.0"),
  withRequest(`POST /${"x".repeat(20_000)} HTTP/1.1`),
  withRequest(`GET /v1/conversations?${"x=1&".repeat(1000)} HTTP/1.1`),
  ({ request, headers, body }) => {
    const chunked = [
      ...headers.filter((line) => !line.startsWith("content-length")),
      "transfer-encoding: chunked",
    ];
    return assembled({ request, headers: chunked, body: `zz\r\n${body}\r\n0\r\n\r\n` });
  },
  ({ request, headers, body }) => {
    const chunked = [
      ...headers.filter((line) => !line.startsWith("content-length")),
      "transfer-encoding: chunked",
    ];
    const chunk = `${body.length.toString(16)};ext="${"x".repeat(100)}"\r\n${body}\r\n`;
    return assembled({ request, headers: chunked, body: `${chunk}0\r\ntrailer: x\r\n\r\n` });
  },
  ({ request, headers, body }) => {
    const chunked = [
      ...headers.filter((line) => !line.startsWith("content-length")),
      "transfer-encoding: chunked",
    ];
    return assembled({ request, headers: chunked, body: `ffffffffffffffff\r\n${body}` });
  },
];

function rawHttp(settings: RawSettings): fc.Arbitrary<RawInput> {
  const head = fc.tuple(fc.constantFrom(...heads), fc.uuid()).map(([change, id]) => {
    const body = JSON.stringify(message(id, settings));
    const headers = [
      `host: ${settings.host}`,
      "connection: close",
      `authorization: Bearer ${settings.token}`,
      "content-type: application/json",
      `content-length: ${body.length}`,
    ];
    return change({ request: "POST /v1/messages HTTP/1.1", headers, body });
  });
  const bytes = fc.oneof(
    { weight: 6, arbitrary: head.map((text) => Buffer.from(text, "latin1")) },
    { weight: 3, arbitrary: fc.tuple(head, damage).map(([text, change]) => change(text)) },
    {
      weight: 1,
      arbitrary: fc.uint8Array({ minLength: 1, maxLength: 400 }).map((some) => Buffer.from(some)),
    },
    // The start of TLS, as whoever mistook the port sends it.
    { weight: 1, arbitrary: fc.constant(Buffer.from("16030100c8010000c40303", "hex")) },
  );
  return inParts("http", bytes);
}

// In the head only: the message's body stays what it is.
const damage = fc
  .array(fc.tuple(fc.nat(250), fc.nat(255), fc.constantFrom("set", "insert", "remove")), {
    minLength: 1,
    maxLength: 4,
  })
  .map((changes) => (text: string) => {
    const bytes = [...Buffer.from(text, "latin1")];
    for (const [at, value, way] of changes)
      bytes.splice(at % bytes.length, way === "insert" ? 0 : 1, ...(way === "remove" ? [] : [value]));
    return Buffer.from(bytes);
  });

function inParts(kind: RawInput["kind"], bytes: fc.Arbitrary<Buffer>): fc.Arbitrary<RawInput> {
  return fc.tuple(bytes, fc.nat(2000), fc.integer({ min: 0, max: 9 })).map(([all, at, dice]) => {
    const cut = at % (all.length + 1);
    const parts = dice < 4 && cut > 0 ? [all.subarray(0, cut), all.subarray(cut)] : [all];
    return { kind, parts: dice === 9 ? parts.slice(0, 1) : parts, hangUp: dice % 2 === 1 };
  });
}

const upgradeHeaders = (settings: RawSettings) => [
  `host: ${settings.host}`,
  "connection: Upgrade",
  "upgrade: websocket",
  "sec-websocket-version: 13",
  "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
  `authorization: Bearer ${settings.token}`,
];

const handshakeChanges: readonly ((headers: string[]) => string[])[] = [
  ...["connection", "upgrade", "sec-websocket-version", "sec-websocket-key", "authorization", "host"].map(
    (name) => (headers: string[]) => headers.filter((line) => !line.startsWith(name)),
  ),
  ...[
    "sec-websocket-version: 8",
    "sec-websocket-version: x",
    "sec-websocket-key: short",
    `sec-websocket-key: ${"A".repeat(5000)}`,
    "sec-websocket-protocol: a, b, c",
    "sec-websocket-extensions: permessage-deflate; server_max_window_bits=99",
    "sec-websocket-extensions: x; y=\0",
    "upgrade: h2c",
    "content-length: 10",
    "origin: null",
  ].map((line) => (headers: string[]) => [...headers, line]),
];

function rawHandshake(settings: RawSettings): fc.Arbitrary<RawInput> {
  const request = fc.constantFrom(
    "GET /v1/stream HTTP/1.1",
    "POST /v1/stream HTTP/1.1",
    "GET /v1/stream HTTP/1.0",
    "GET /v1/stream?access_token=x HTTP/1.1",
    "GET /v1/stream?access_token=%00 HTTP/1.1",
    "GET /v1/conversations HTTP/1.1",
  );
  const bytes = fc
    .tuple(request, fc.array(fc.constantFrom(...handshakeChanges), { maxLength: 2 }))
    .map(([line, changes]) => {
      const headers = changes.reduce((before, change) => change(before), upgradeHeaders(settings));
      return Buffer.from(`${line}\r\n${headers.join("\r\n")}\r\n\r\n`, "latin1");
    });
  return inParts("handshake", bytes);
}

function rawFrames(settings: RawSettings): fc.Arbitrary<RawInput> {
  const handshake = `GET /v1/stream HTTP/1.1\r\n${upgradeHeaders(settings).join("\r\n")}\r\n\r\n`;
  const one = fc.oneof({ weight: 3, arbitrary: sendFrame(settings) }, { weight: 5, arbitrary: oddFrame });
  return fc
    .tuple(fc.array(one, { minLength: 1, maxLength: 5 }), fc.boolean(), fc.nat(3000))
    .map(([frames, hangUp, at]) => {
      const bytes = Buffer.concat(frames);
      // Now and then the last frame stays incomplete.
      const sent = at % 7 === 0 ? bytes.subarray(0, at % (bytes.length + 1)) : bytes;
      return { kind: "frames", parts: [handshake, sent], hangUp };
    });
}

interface FrameParts {
  opcode: number;
  payload?: Uint8Array | string;
  isFinal?: boolean;
  reserved?: number;
  isMasked?: boolean;
  /** Instead of the payload's own. */
  length?: bigint;
}

/** A frame of RFC 6455, 5.2, or what is none. */
function frameBytes({
  opcode,
  payload = "",
  isFinal = true,
  reserved = 0,
  isMasked = true,
  length,
}: FrameParts) {
  const data = Buffer.from(payload);
  const size = length ?? BigInt(data.length);
  const mask = isMasked ? 0x80 : 0;
  const first = (isFinal ? 0x80 : 0) | (reserved << 4) | opcode;
  let head: Buffer;
  if (size < 126n) head = Buffer.from([first, mask | Number(size)]);
  else if (size < 65_536n) {
    head = Buffer.from([first, mask | 126, 0, 0]);
    head.writeUInt16BE(Number(size), 2);
  } else {
    head = Buffer.from([first, mask | 127, 0, 0, 0, 0, 0, 0, 0, 0]);
    head.writeBigUInt64BE(size, 2);
  }
  const key = [0x12, 0x34, 0x56, 0x78];
  const masked = isMasked ? Buffer.from(data.map((byte, at) => byte ^ (key[at % 4] ?? 0))) : data;
  return Buffer.concat([head, Buffer.from(isMasked ? key : []), masked]);
}

function sendFrame(settings: RawSettings): fc.Arbitrary<Buffer> {
  return fc
    .tuple(fc.uuid(), fc.nat(400), fc.constantFrom("whole", "fragments", "interleaved", "binary"))
    .map(([id, at, way]) => {
      const text = JSON.stringify({ type: "send", ref: id, ...message(id, settings) });
      const [start, end] = [text.slice(0, at % text.length), text.slice(at % text.length)];
      const [first, last] = [
        frameBytes({ opcode: 1, payload: start, isFinal: false }),
        frameBytes({ opcode: 0, payload: end }),
      ];
      if (way === "whole") return frameBytes({ opcode: 1, payload: text });
      if (way === "binary") return frameBytes({ opcode: 2, payload: text });
      return Buffer.concat(way === "fragments" ? [first, last] : [first, frameBytes({ opcode: 9 }), last]);
    });
}

const oddFrame: fc.Arbitrary<Buffer> = fc.oneof(
  fc.constantFrom(
    ...[
      { opcode: 1, payload: '{"type":"ping"}', isMasked: false },
      { opcode: 1, payload: '{"type":"ping"}', reserved: 1 },
      { opcode: 1, payload: '{"type":"ping"}', reserved: 4 },
      { opcode: 3, payload: "x" },
      { opcode: 15 },
      { opcode: 0, payload: "a continuation of nothing" },
      { opcode: 1, payload: "a beginning", isFinal: false },
      { opcode: 1, payload: Buffer.from([0xc3, 0x28, 0xff, 0xed, 0xa0, 0x80]) },
      { opcode: 1, payload: "x".repeat(70 * 1024) },
      { opcode: 1, payload: "x".repeat(100 * 1024) },
      { opcode: 1, length: 2n ** 63n },
      { opcode: 1, length: 2n ** 64n - 1n },
      { opcode: 1, length: 100n * 1024n * 1024n },
      { opcode: 1, payload: "x", length: 200n },
      { opcode: 9, payload: "x".repeat(126) },
      { opcode: 9, payload: "x", isFinal: false },
      { opcode: 9, payload: "ping" },
      { opcode: 10, payload: "nobody asked" },
      { opcode: 8 },
      { opcode: 8, payload: Buffer.from([3]) },
      ...[0, 999, 1000, 1005, 1006, 1015, 2999, 5000, 65_535].map((code) => ({
        opcode: 8,
        payload: Buffer.from([code >> 8, code & 0xff]),
      })),
      { opcode: 8, payload: Buffer.from([3, 232, 0xff, 0xfe]) },
    ].map(frameBytes),
  ),
  fc.uint8Array({ minLength: 1, maxLength: 60 }).map((bytes) => Buffer.from(bytes)),
);
