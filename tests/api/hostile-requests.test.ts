// Requests made from the OpenAPI document, most of them spoilt, to every call in it, as members, outsiders, operators
// and nobody. HOSTILE_SEED and HOSTILE_RUNS (for each call) choose others than the suite's; `bun run hostile` goes on
// for as long as one likes.
import { afterAll, beforeAll, expect, test } from "bun:test";
import * as fc from "fast-check";
import { contentOf, countRows, plus } from "../hostile/effects.ts";
import { exchange, requestBytes } from "../hostile/exchange.ts";
import { callsWithoutEffect, type Judge, openJudge } from "../hostile/judge.ts";
import { callsOfDocument, type HostileRequest, requestsFor } from "../hostile/requests.ts";
import { headersOf, makeScene, type Scene } from "../hostile/scene.ts";
import { type DocumentedServer, startDocumentedServer } from "../support/documented-server.ts";
import type { Answer } from "../support/server.ts";

const seed = Number(process.env["HOSTILE_SEED"] ?? 20_262);
const numRuns = Number(process.env["HOSTILE_RUNS"] ?? 40);
const testMsMax = 60_000 + numRuns * 2000;

let server: DocumentedServer;
let scene: Scene;
let judge: Judge;
beforeAll(async () => {
  server = await startDocumentedServer();
  scene = await makeScene(server);
  judge = openJudge(server.document);
});
afterAll(async () => await server?.[Symbol.asyncDispose]());

test("of every call in the document it is said what it stores", () => {
  expect(callsWithoutEffect(server.document)).toEqual([]);
});

test(
  "whatever is asked is answered as documented; what is refused changes nothing, what is taken is stored once",
  async () => {
    const seen = { taken: 0, refused: 0 };
    for (const call of callsOfDocument(server.document)) {
      const property = fc.asyncProperty(requestsFor(server.document, call, scene.known), async (request) => {
        const answer = await sendAndJudge(request);
        seen[answer.status < 400 ? "taken" : "refused"] += 1;
      });
      await fc.assert(property, { seed, numRuns });
    }
    const requests = callsOfDocument(server.document).length * numRuns;
    expect(seen.taken).toBeGreaterThan(requests / 10);
    expect(seen.refused).toBeGreaterThan(requests / 4);
  },
  testMsMax,
);

let content = "";

async function sendAndJudge(request: HostileRequest): Promise<Answer> {
  if (content === "") content = await contentOf(server.postgres);
  const before = content;
  const counts = await countRows(server.postgres);
  const bytes = requestBytes({ ...request, headers: headersOf(server.url, scene, request) });
  const { answers } = await exchange(server.url, bytes);
  const [answer] = answers;
  if (answer === undefined || answers.length !== 1) throw new Error(`${answers.length} answers`);
  const stored = judge.check(request, answer);
  content = await contentOf(server.postgres);
  if (stored !== "unknown") expect(await countRows(server.postgres)).toEqual(plus(counts, stored));
  // The refusal of a refresh token that was used before takes its family back, and is the only one that stores.
  const isReuse = answer.body?.code === "invalid_grant";
  if ((answer.status >= 400 && !isReuse) || request.method === "GET") expect(content).toBe(before);
  return answer;
}
