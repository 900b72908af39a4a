// What instances tell each other, there and back.
import { expect, test } from "bun:test";
import * as fc from "fast-check";
import type { LiveEvent } from "../../src/deliver/live.ts";
import { decode, encode, type WireMessage } from "../../src/deliver/wire.ts";
import { eventKinds } from "../../src/model/event.ts";

const self = crypto.randomUUID();
const other = crypto.randomUUID();
const wantAll = () => true;
const text = fc.string({ unit: "binary", maxLength: 40 });
const event: fc.Arbitrary<LiveEvent> = fc.record({
  conversation_id: fc.uuid(),
  sequence_number: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
  event: fc.constantFrom(...eventKinds),
  removed_user_id: fc.option(text.filter((user) => user !== "")),
  json: text.map((value) => JSON.stringify({ value }, null, 1)),
});

test("events come out as they went in, also with any characters and line ends in them", () => {
  fc.assert(
    fc.property(fc.array(event), (events) => {
      const message: WireMessage = { kind: "events", from: other, events };
      expect(decode(encode(message), self, wantAll)).toEqual(message);
    }),
  );
});

test("events of other conversations are skipped", () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(event, fc.boolean())), (pairs) => {
      const wanted = pairs.filter(([, isWanted]) => isWanted).map(([one]) => one);
      const ids = new Set(wanted.map(({ conversation_id }) => conversation_id));
      const encoded = encode({ kind: "events", from: other, events: pairs.map(([one]) => one) });
      expect(decode(encoded, self, (id) => ids.has(id))).toEqual({
        kind: "events",
        from: other,
        events: wanted,
      });
    }),
  );
});

test("what an instance said itself is not heard again, nor what is not understood", () => {
  expect(decode(encode({ kind: "events", from: self, events: [] }), self, wantAll)).toBeNull();
  expect(decode(encode({ kind: "revoked", from: self, tokenIds: ["a"] }), self, wantAll)).toBeNull();
  for (const garbage of ["", "Zfuture", "A{", `R${other}[`, `E${other}short`]) {
    expect(decode(garbage, self, wantAll)?.kind ?? null).toBeOneOf([null, "events"]);
  }
});

test("every other kind comes out as it went in", () => {
  const conversation_id = crypto.randomUUID();
  const messages: WireMessage[] = [
    { kind: "signal", from: other, signal: { conversation_id, frame: '{"type":"typing"}' } },
    { kind: "announcements", announcements: [{ conversation_id, sequence_number: 7 }] },
    { kind: "revoked", from: other, tokenIds: ["a", "b"] },
    { kind: "epoch" },
  ];
  for (const message of messages) expect(decode(encode(message), self, wantAll)).toEqual(message);
});
