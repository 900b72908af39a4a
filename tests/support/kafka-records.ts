// Records as anybody who may write to the outbox topic could write them: near to an event's, and far from it.

import * as fc from "fast-check";

/** A record before it is sent: bytes, as Kafka has them. */
export interface RawRecord {
  key: Buffer | null;
  value: Buffer | null;
  headers: Record<string, Buffer>;
}

const oddBytes = fc.uint8Array({ maxLength: 60 }).map((bytes) => Buffer.from(bytes));
const oddText = fc.oneof(
  fc.string({ unit: "binary", maxLength: 40 }),
  fc.string({ unit: "grapheme", maxLength: 20 }),
);
const key = fc.uuid().map((id) => `conversation:${id}`);
const nearKey = key.chain((text) =>
  fc.constantFrom(
    text.toUpperCase(),
    `${text}\n`,
    ` ${text}`,
    text.slice(0, -1),
    text.replaceAll("-", ""),
    text.replace("conversation:", ""),
    `${text}${text}`,
  ),
);
const number = fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }).map(String);
const nearNumber = fc.oneof(
  fc.constantFrom(
    "",
    "0",
    "-1",
    "+1",
    "01",
    "1.0",
    "0x10",
    "1e3",
    " 1",
    "1\n",
    "1,1",
    "NaN",
    "Infinity",
    "null",
  ),
  fc.constantFrom("9007199254740992", "9007199254740993", "1".repeat(400), "١", "1_000"),
  fc.double().map(String),
);
const value = fc.object().map((object) => JSON.stringify(object));
const hugeValue = fc.integer({ min: 1, max: 900_000 }).map((length) => `"${"x".repeat(length)}"`);
const prototypeNames = fc.constantFrom(
  "__proto__",
  "constructor",
  "prototype",
  "toString",
  "valueOf",
  "hasOwnProperty",
);
const knownNames = fc.constantFrom(
  "ce_id",
  "ce_type",
  "content-type",
  "traceparent",
  "channels",
  "message_id",
  "dead_letter_id",
);
const channels = fc.constantFrom(
  "mail",
  "mail,sms",
  ",",
  "mail,mail",
  "__proto__",
  "constructor,mail",
  "ünknown",
);

function bytesOf(text: fc.Arbitrary<string>): fc.Arbitrary<Buffer> {
  return text.map((chars) => Buffer.from(chars));
}

/** Mostly the first, so that a record is often wrong in one part only. */
function mostly<T, U>(usual: fc.Arbitrary<T>, ...others: fc.Arbitrary<U>[]) {
  return fc.oneof({ arbitrary: usual, weight: 6 }, ...others.map((arbitrary) => ({ arbitrary, weight: 1 })));
}

const headers = fc
  .tuple(
    mostly(bytesOf(number), bytesOf(nearNumber), oddBytes, fc.constant(undefined)),
    mostly(fc.constant(undefined), bytesOf(channels), oddBytes),
    fc.array(fc.tuple(fc.oneof(prototypeNames, knownNames, oddText), fc.oneof(bytesOf(oddText), oddBytes)), {
      maxLength: 5,
    }),
    fc.integer({ min: 0, max: 49 }).map((draw) => (draw === 0 ? 200_000 : 0)),
  )
  .map(([sequenceNumber, channelList, others, hugeLength]) => {
    const all = [...others];
    if (sequenceNumber !== undefined) all.push(["sequence_number", sequenceNumber]);
    if (channelList !== undefined) all.push(["channels", channelList]);
    if (hugeLength > 0) all.push(["huge", Buffer.alloc(hugeLength, "h")]);
    return Object.fromEntries(all);
  });

/** Records of which some are events, and most are wrong in one part or another. */
export const anyRawRecord: fc.Arbitrary<RawRecord> = fc.record({
  key: mostly(bytesOf(key), bytesOf(nearKey), bytesOf(oddText), oddBytes, fc.constant(null)),
  value: fc.oneof(
    { arbitrary: bytesOf(value), weight: 60 },
    { arbitrary: oddBytes, weight: 10 },
    { arbitrary: bytesOf(oddText), weight: 10 },
    { arbitrary: fc.constantFrom(null, Buffer.alloc(0)), weight: 10 },
    { arbitrary: bytesOf(hugeValue), weight: 1 },
  ),
  headers,
});
