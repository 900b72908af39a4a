import { describe, expect, test } from "bun:test";
import { conversationKey, partitionOf } from "../../src/platform/murmur2.ts";

// Computed with kafka-clients 4.3.1: `Utils.toPositive(Utils.murmur2(key.getBytes(UTF_8)))`, modulo the two counts.
const javaPartitions: [key: string, of16: number, of1000003: number][] = [
  ["", 9, 645856],
  ["a", 12, 100772],
  ["ab", 10, 154486],
  ["abc", 11, 468670],
  ["abcd", 4, 831631],
  ["conversation:00000000-0000-0000-0000-000000000000", 7, 489735],
  ["conversation:7f3a9e52-1c1d-4f0b-9a55-3d5c0e0b6f21", 12, 267327],
  ["conversation:ffffffff-ffff-ffff-ffff-ffffffffffff", 2, 242291],
  ["conversation:ñandú", 10, 408156],
  ["会話:東京", 3, 292030],
  ["🙂", 15, 248024],
  ["Straße-Ω≈ç√", 9, 692640],
  ["\u007f\u0080\u07ff\u0800", 13, 655452],
];

describe("the partition of a key", () => {
  test.each(javaPartitions)("is the one that Java's client chooses for %p", (key, of16, of1000003) => {
    expect(partitionOf(key, 16)).toBe(of16);
    expect(partitionOf(key, 1_000_003)).toBe(of1000003);
  });

  test("hangs on the conversation only", () => {
    expect(conversationKey("7f3a9e52-1c1d-4f0b-9a55-3d5c0e0b6f21")).toBe(
      "conversation:7f3a9e52-1c1d-4f0b-9a55-3d5c0e0b6f21",
    );
  });
});
