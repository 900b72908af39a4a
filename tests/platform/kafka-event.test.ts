// The records of the outbox topic: an event comes back as it was written, and anything else is refused in one way.
// `KAFKA_DECODER_RUNS=100000 bun test tests/platform/kafka-event.test.ts` is the long run.

import { expect, setDefaultTimeout, test } from "bun:test";
import * as fc from "fast-check";
import { OperatingError } from "../../src/model/errors.ts";
import { type EventRow, eventKinds } from "../../src/model/event.ts";
import type { ConsumedRecord, KafkaRecord } from "../../src/platform/kafka.ts";
import { decodeEvent, encodeEvent, type RoutedEvent } from "../../src/platform/kafka-event.ts";
import { anyRawRecord, type RawRecord } from "../support/kafka-records.ts";

const parameters = { seed: 20_261, numRuns: Number(process.env["KAFKA_DECODER_RUNS"] ?? 1_000) };
setDefaultTimeout(20_000 + parameters.numRuns * 10);

test("reads every event as it was written", () => {
  const channelNames = fc.uniqueArray(fc.stringMatching(/^[a-z0-9-]{1,64}$/), { maxLength: 4 });
  const property = fc.property(eventRows, channelNames, (row, channels) => {
    const routing = { traceparent: null, channels, dead_letter_id: null };
    const written = encodeEvent(row, routing);
    const event = decodeEvent(consumed(rawOf(written)));
    expect(event).toMatchObject({
      conversationId: row.conversation_id,
      sequenceNumber: row.sequence_number,
      channels,
    });
    const { channels: _, ...headers } = written.headers;
    expect(event.record).toEqual({ ...written, headers });
  });
  fc.assert(property, parameters);
});

test("reads any record as an event that is the same when written, or refuses it", () => {
  const counts = { events: 0, refusals: 0 };
  const property = fc.property(anyRawRecord, (raw) => {
    const read = consumed(raw);
    const event = decodeOrRefuse(read);
    if (event === undefined) {
      counts.refusals += 1;
      return;
    }
    counts.events += 1;
    const { channels, ...headers } = read.headers;
    expect(event.record.key).toBe(`conversation:${event.conversationId}`);
    expect(isSame(event.record.key, raw.key)).toBe(true);
    expect(isSame(event.record.value, raw.value)).toBe(true);
    expect(event.record.headers).toEqual(headers);
    expect(event.record.headers["sequence_number"]).toBe(String(event.sequenceNumber));
    expect(event.channels.join(",")).toBe(channels ?? "");
  });
  fc.assert(property, parameters);
  // Both are met often, or the test proves little.
  expect(Math.min(counts.events, counts.refusals)).toBeGreaterThan(parameters.numRuns / 5);
});

/** Undefined for a refusal; anything else that is thrown fails the test. */
function decodeOrRefuse(read: ConsumedRecord): RoutedEvent | undefined {
  try {
    return decodeEvent(read);
  } catch (error) {
    expect(error).toBeInstanceOf(OperatingError);
    expect(error).toMatchObject({ code: "undecodable_record" });
    return undefined;
  }
}

function isSame(text: string, bytes: Buffer | null): boolean {
  return bytes !== null && Buffer.from(text).equals(bytes);
}

const dates = fc.date({ min: new Date(0), max: new Date("9999-12-31"), noInvalidDate: true });
const json = fc.option(
  fc.object().map((object) => JSON.stringify(object)),
  { nil: null },
);
const eventRows: fc.Arbitrary<EventRow> = fc.record({
  event: fc.constantFrom(...eventKinds),
  conversation_id: fc.uuid(),
  sequence_number: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
  message_id: fc.uuid(),
  sender_id: fc.string({ unit: "binary", minLength: 1, maxLength: 128 }),
  payload: json,
  metadata: json,
  target_sequence_number: fc.option(fc.integer({ min: 1 }), { nil: null }),
  created_at: dates,
});

function rawOf({ key, value, headers }: KafkaRecord): RawRecord {
  const entries = Object.entries(headers).map(([name, text]): [string, Buffer] => [name, Buffer.from(text)]);
  return { key: Buffer.from(key), value: Buffer.from(value), headers: Object.fromEntries(entries) };
}

/** As the consumer shows it. */
function consumed({ key, value, headers }: RawRecord): ConsumedRecord {
  const texts = Object.entries(headers).map(([name, bytes]): [string, string] => [name, String(bytes)]);
  return {
    key: key?.toString() ?? null,
    value,
    headers: Object.fromEntries(texts),
    offset: "0",
    timestampMs: 0,
  };
}
