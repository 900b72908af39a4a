// What is read out of the probes' samples. Times in ms.
import { expect, test } from "bun:test";
import { effectsOf, type Sample, type Struck } from "./recovery.ts";

/** A sample each 200 ms up to `endMs`; well, but for what is said of its time. */
function samplesTo(endMs: number, at: (atMs: number) => Partial<Sample>): Sample[] {
  return Array.from({ length: endMs / 200 + 1 }, (_, index) => ({
    atMs: index * 200,
    acceptMs: new Map([
      ["one", 5],
      ["two", 7],
    ]),
    liveMs: 3,
    outboxMs: 50,
    routedMs: 100,
    ...at(index * 200),
  }));
}

function fault(what: string, beganAtMs: number, endedAtMs: number, group = "way"): Struck {
  return { name: `one ${what}`, what, group, target: "one", beganAtMs, endedAtMs };
}

test("the worst while a fault is there is told, and how soon all is as before", () => {
  const samples = samplesTo(9_000, (atMs) => (atMs >= 1_000 && atMs < 3_400 ? { outboxMs: atMs } : {}));
  const [effect] = effectsOf([fault("cut", 1_000, 3_000)], samples);
  expect(effect?.what).toBe("cut");
  expect(effect?.during).toEqual({ acceptMs: 7, liveMs: 3, outboxMs: 2_800 });
  expect(effect?.takenOverMs).toBeUndefined();
  expect(effect?.recovered.publish).toEqual({ afterMs: 400, isSeen: true });
  expect(effect?.recovered.accept).toEqual({ afterMs: 0, isSeen: true });
});

test("what others take over while the fault is there is told from its beginning", () => {
  const samples = samplesTo(9_000, (atMs) => (atMs >= 1_000 && atMs < 3_000 ? { outboxMs: 1_500 } : {}));
  expect(effectsOf([fault("kill", 1_000, 6_000)], samples)[0]?.takenOverMs).toBe(2_000);
});

test("of an instance that is away, answers do not count", () => {
  const hangs = (atMs: number) => (atMs < 3_000 ? { acceptMs: new Map([["one", 2_900]]) } : {});
  const [paused, cut] = ["instance", "way"].map((group) => {
    const [effect] = effectsOf([fault("pause", 0, 3_000, group)], samplesTo(9_000, hangs));
    return effect?.during.acceptMs;
  });
  expect([paused, cut]).toEqual([0, 2_900]);
});

test("faults that overlap are one, and those that follow one another are not", () => {
  const struck = [fault("later", 6_000, 7_000), fault("b", 2_000, 4_000), fault("a", 1_000, 3_000)];
  const effects = effectsOf(
    struck,
    samplesTo(9_000, () => ({})),
  );
  expect(effects.map(({ what }) => what)).toEqual(["a, with b", "later"]);
});

test("a recovery that the next fault cut short is told as such", () => {
  const samples = samplesTo(9_000, (atMs) => (atMs < 6_000 ? { routedMs: 5_000 } : {}));
  const effects = effectsOf([fault("cut", 1_000, 2_000), fault("cut", 5_000, 5_500)], samples);
  expect(effects.map(({ recovered }) => recovered.route)).toEqual([
    { afterMs: 2_800, isSeen: false },
    { afterMs: 500, isSeen: true },
  ]);
});
