import { afterEach, expect, setSystemTime, test } from "bun:test";
import { openCircuit } from "../../src/platform/circuit.ts";

const settings = { failuresToOpen: 3, halfOpenAfterMs: 500 };
const answer = () => Promise.resolve("answer");
const failure = () => Promise.reject(new Error("away"));

let nowMs = 0;
const newCircuit = () => openCircuit(settings, () => nowMs);

afterEach(() => {
  setSystemTime();
});

async function opened() {
  const circuit = newCircuit();
  for (let failures = 0; failures < settings.failuresToOpen; failures += 1) {
    expect(circuit.state()).toBe("closed");
    await expect(circuit.run(failure)).rejects.toThrow("away");
  }
  expect(circuit.state()).toBe("open");
  return circuit;
}

test("opens after failures in a row, and tries nothing then", async () => {
  const circuit = await opened();
  await expect(circuit.run(answer)).rejects.toMatchObject({ code: "circuit_open" });
});

test("does not open for failures that answers stand between", async () => {
  const circuit = newCircuit();
  for (let round = 0; round < 5; round += 1) {
    await expect(circuit.run(failure)).rejects.toThrow("away");
    await expect(circuit.run(failure)).rejects.toThrow("away");
    expect(await circuit.run(answer)).toBe("answer");
  }
  expect(circuit.state()).toBe("closed");
});

test("lets one call try after the pause, and all the others once that has an answer", async () => {
  const circuit = await opened();
  nowMs += settings.halfOpenAfterMs;
  const trial = Promise.withResolvers<string>();
  const trying = circuit.run(() => trial.promise);
  expect(circuit.state()).toBe("half_open");
  await expect(circuit.run(answer)).rejects.toMatchObject({ code: "circuit_open" });
  trial.resolve("back");
  expect(await trying).toBe("back");
  expect(await circuit.run(answer)).toBe("answer");
});

test("opens for another pause when the one that tried fails", async () => {
  const circuit = await opened();
  nowMs += settings.halfOpenAfterMs;
  await expect(circuit.run(failure)).rejects.toThrow("away");
  nowMs += settings.halfOpenAfterMs - 1;
  await expect(circuit.run(answer)).rejects.toMatchObject({ code: "circuit_open" });
  nowMs += 1;
  expect(await circuit.run(answer)).toBe("answer");
});

test("is not held open by a time of day that is set back an hour", async () => {
  const circuit = openCircuit({ failuresToOpen: 1, halfOpenAfterMs: 1 });
  setSystemTime(new Date(Date.now() + 3_600_000));
  await expect(circuit.run(failure)).rejects.toThrow("away");
  setSystemTime();
  await Bun.sleep(5);
  expect(await circuit.run(answer)).toBe("answer");
});
