// Talks over sockets in which most frames are spoilt: each frame gets its answer, good ones work beside bad ones,
// what is refused is stored nowhere, and nothing stays when the socket is gone. HOSTILE_SEED and HOSTILE_RUNS (talks)
// choose others than the suite's.
import { afterAll, beforeAll, expect, test } from "bun:test";
import * as fc from "fast-check";
import { contentOf, countRows } from "../hostile/effects.ts";
import {
  answersIn,
  type Frame,
  type FramesDocument,
  framesFor,
  serverFrameChecker,
  talk,
  unansweredMax,
} from "../hostile/frames.ts";
import { untilNothingIsHeld } from "../hostile/held.ts";
import { makeScene, type Scene } from "../hostile/scene.ts";
import { echoMark } from "../support/problems.ts";
import { startServer, type TestServer } from "../support/server.ts";

const seed = Number(process.env["HOSTILE_SEED"] ?? 20_263);
const numRuns = Number(process.env["HOSTILE_RUNS"] ?? 250);
const testMsMax = 60_000 + numRuns * 1000;

let server: TestServer;
let scene: Scene;
let document: FramesDocument;
beforeAll(async () => {
  server = await startServer({ ROLES: "api" });
  scene = await makeScene(server);
  document = (await server.call("GET", "/docs/asyncapi.json")).body;
});
afterAll(async () => await server?.[Symbol.asyncDispose]());

test(
  "each frame is answered, and what is refused is stored nowhere",
  async () => {
    const check = serverFrameChecker(document);
    const seen = { taken: 0, refused: 0 };
    // Fewer than the bad frames that end a socket.
    const frames = fc.array(framesFor(document, scene.known), { minLength: 1, maxLength: 15 });
    const property = fc.asyncProperty(frames, async (sent) => {
      const [before, content] = [await countRows(server.postgres), await contentOf(server.postgres)];
      const done = await talk(server.url, scene.tokens.owner, sent, scene.conversations);
      expect(done.closeCode).toBe(1000);
      for (const frame of done.received) check(frame);
      expect(answersIn(done) - scene.conversations.length).toBeWithin(
        sent.length - unansweredMax(sent),
        sent.length + 1,
      );
      const stored = done.received.filter(({ type, replay }) => type === "ack" && replay === false).length;
      expect(await countRows(server.postgres)).toEqual({ ...before, messages: before.messages + stored });
      const mayStore = done.received.some(({ type }) => type === "ack" || type === "receipt");
      if (!mayStore) expect(await contentOf(server.postgres)).toBe(content);
      const errors = done.received.filter(({ type }) => type === "error");
      for (const { detail } of errors) expect(String(detail)).not.toContain(`: ${echoMark}`);
      seen.refused += errors.length;
      seen.taken += stored;
    });
    await fc.assert(property, { seed, numRuns });
    expect(seen.taken).toBeGreaterThan(numRuns / 10);
    expect(seen.refused).toBeGreaterThan(numRuns);
    await untilNothingIsHeld(server.config);
  },
  testMsMax,
);

test("a socket that sends too many bad frames is closed with 1008, and what it sent before is stored", async () => {
  const bad: Frame[] = ["", "[]", "{", "\0", new Uint8Array([1, 2, 3]), '{"type":"drop"}', '"ping"'];
  const send = {
    type: "send",
    ref: "good",
    message_id: crypto.randomUUID(),
    conversation_id: scene.conversations[0],
    payload: { type: "text", text: "between bad ones" },
  };
  const before = await countRows(server.postgres);
  const frames = [
    JSON.stringify(send),
    ...Array.from({ length: 40 }, (_, at) => bad[at % bad.length] as Frame),
  ];
  const done = await talk(server.url, scene.tokens.owner, frames, []);
  expect(done.closeCode).toBe(1008);
  expect(done.received.filter(({ type }) => type === "error").length).toBeWithin(20, 22);
  // The close may come before the answer to what was still under way; it is stored once, and a retry finds it.
  const again = await talk(server.url, scene.tokens.owner, [JSON.stringify(send)], []);
  expect(again.received.find(({ type }) => type === "ack")).toMatchObject({ ref: "good" });
  expect(await countRows(server.postgres)).toEqual({ ...before, messages: before.messages + 1 });
  await untilNothingIsHeld(server.config);
});
