// A long run: inputs in blocks, each block from a seed of its own, many at a time; then everything is held against
// what was acknowledged.
import * as fc from "fast-check";
import type { OpenApiDocument } from "../support/documented-server.ts";
import { until } from "../support/until.ts";
import { countRows } from "./effects.ts";
import { exchange, requestBytes } from "./exchange.ts";
import { type Frame, type FramesDocument, framesFor, serverFrameChecker, talk } from "./frames.ts";
import { untilNothingIsHeld } from "./held.ts";
import { type Judge, openJudge } from "./judge.ts";
import { type Finding, Ledger } from "./ledger.ts";
import type { HostileNode } from "./node.ts";
import { type RawInput, rawInputs } from "./raw-bytes.ts";
import { callsOfDocument, type HostileRequest, requestsFor } from "./requests.ts";
import { headersOf, makeScene, type Scene } from "./scene.ts";

/** What is run. */
export interface DriveSettings {
  inputs: number;
  seed: number;
  progress(line: string): void;
}

/** How much of a block is what; a talk has four frames in the mean. */
const inBlock = { requests: 270, talks: 40, raw: 70 };
const framesInTalkMax = 8;
const atOnce = { requests: 12, talks: 6, raw: 6 };
/** A server that waits for the rest of a request is left after so long. */
const silenceMs = 300;
/** Growth of memory from the second third of a run to the last one, in the median. */
const growthMax = 1.25;
/** Files that come and go without being a leak: connections to the servers behind it. */
const openFilesMore = 40;

interface Drive {
  node: HostileNode;
  scene: Scene;
  judge: Judge;
  checkFrame: ReturnType<typeof serverFrameChecker>;
  ledger: Ledger;
}

/** Runs it, stops the node, and judges. */
export async function drive(
  node: HostileNode,
  { inputs, seed, progress }: DriveSettings,
): Promise<{ isGood: boolean; report: string }> {
  const scene = await makeScene(node);
  const document: OpenApiDocument = (await node.call("GET", "/openapi.json")).body;
  const frameDocument: FramesDocument = (await node.call("GET", "/docs/asyncapi.json")).body;
  const rawConversation = await node.makeGroup(["bob"]);
  const ledger = new Ledger(rawConversation);
  const run: Drive = {
    node,
    scene,
    ledger,
    judge: openJudge(document),
    checkFrame: serverFrameChecker(frameDocument),
  };
  const arbitraries = {
    requests: fc.oneof(
      ...callsOfDocument(document).map((call) => ({
        // Argon2 makes these calls slow, and is not what is tried here.
        weight: /oauth|clients/.test(call) ? 1 : 4,
        arbitrary: requestsFor(document, call, scene.known),
      })),
    ),
    talks: fc.array(framesFor(frameDocument, scene.known), { minLength: 1, maxLength: framesInTalkMax }),
    raw: rawInputs({
      host: new URL(node.url).host,
      token: scene.tokens.owner,
      conversationId: rawConversation,
    }),
  };
  const before = await countRows(node.postgres);
  const filesBefore = node.openFiles();
  const resident: number[] = [node.residentBytes() ?? 0];
  const startedAtMs = performance.now();
  let sent = 0;
  for (let block = 0; sent < inputs; block += 1) {
    const sample = <Value>(arbitrary: fc.Arbitrary<Value>, numRuns: number) =>
      fc.sample(arbitrary, { seed: (seed + block) | 0, numRuns });
    const failing = (kind: string) => (error: unknown, input: unknown) =>
      ledger.violation(`${kind}, seed ${seed}, block ${block}: ${String(error)}: ${shown(input)}`);
    await Promise.all([
      each(
        sample(arbitraries.requests, inBlock.requests),
        atOnce.requests,
        (one) => sendRequest(run, one),
        failing("request"),
      ),
      each(
        sample(arbitraries.talks, inBlock.talks),
        atOnce.talks,
        (one) => holdTalk(run, one),
        failing("frames"),
      ),
      each(
        sample(arbitraries.raw, inBlock.raw),
        atOnce.raw,
        (one) => sendRaw(run, one),
        failing("raw bytes"),
      ),
    ]);
    sent = [...ledger.inputs.values()].reduce((sum, count) => sum + count, 0);
    resident.push(node.residentBytes() ?? 0);
    if (block % 20 === 0) {
      const seconds = ((performance.now() - startedAtMs) / 1000).toFixed(0);
      progress(
        `${sent} of ${inputs} inputs in ${seconds} s, ${mib(resident.at(-1) ?? 0)}, ${ledger.violationsCount} violations`,
      );
    }
    if (node.residentBytes() === undefined) break;
  }

  const findings = [
    ...(await heldFindings(node, filesBefore)),
    ...(await ledger.judge(node.postgres, before)),
    memoryFinding(resident),
    ...(await endFindings(node)),
    { what: "violations", isGood: ledger.violationsCount === 0, seen: String(ledger.violationsCount) },
  ];
  return {
    isGood: findings.every((finding) => finding.isGood),
    report: reportOf(ledger, findings, `${sent} inputs, seed ${seed}`),
  };
}

async function sendRequest({ node, scene, judge, ledger }: Drive, request: HostileRequest): Promise<void> {
  ledger.input(request.call);
  const bytes = requestBytes({ ...request, headers: headersOf(node.url, scene, request) });
  const { answers } = await exchange(node.url, bytes);
  const [answer] = answers;
  if (answer === undefined || answers.length !== 1) throw new Error(`${answers.length} answers`);
  ledger.answer("request", answer.status);
  const stored = judge.check(request, answer);
  if (stored !== "unknown") ledger.stored(stored);
  if (answer.status < 300 && request.method !== "GET") ledger.acknowledged(answer);
}

async function holdTalk({ node, scene, checkFrame, ledger }: Drive, frames: Frame[]): Promise<void> {
  ledger.input("frames", frames.length);
  const done = await talk(node.url, scene.tokens.owner, frames, scene.conversations);
  for (const frame of done.received) {
    checkFrame(frame);
    if (frame.type === "error") ledger.answer("frame error", frame.status ?? 0);
    if (frame.type === "ack" && frame.replay === false) ledger.stored({ messages: 1 });
  }
  if (done.closeCode !== 1000) throw new Error(`closed with ${done.closeCode}`);
}

async function sendRaw({ node, ledger }: Drive, { kind, parts, hangUp }: RawInput): Promise<void> {
  ledger.input(`raw ${kind}`);
  const { answers, end, text } = await exchange(node.url, parts, {
    silenceMs,
    hangUp,
    isSocket: kind === "frames",
  });
  const statuses = answers.map(({ status }) => status);
  ledger.answer(`raw ${kind}`, statuses[0] ?? end);
  // 505 is of the HTTP server itself, for a version that is none.
  if (statuses.some((status) => status >= 500 && status !== 503 && status !== 505))
    throw new Error(`answers ${statuses.join(", ")}`);
  if (text.includes('"code":"internal_error"')) throw new Error(`answers ${text}`);
  for (const [, type, messageId] of text.matchAll(/"type":"(ack|error)","ref":"([0-9a-f-]{36})"/g))
    ledger.raw(String(messageId), type === "ack" ? "taken" : "refused");
  // The HTTP server refuses bytes that are no request without asking us, also while a whole request before them is
  // under way, whose answer is lost then: only what we answer ourselves is told by it.
  if (kind !== "http" || !answers.some(({ headers }) => headers.has("x-request-id"))) return;
  const isTaken = statuses.includes(202);
  const sent = Buffer.concat(parts.map((part) => Buffer.from(part))).toString("latin1");
  for (const [, messageId] of sent.matchAll(/"message_id":"([0-9a-f-]{36})"/g))
    ledger.raw(String(messageId), isTaken ? "taken" : "refused");
}

/** Works on all of them, so many at a time. */
async function each<Input>(
  inputs: readonly Input[],
  count: number,
  work: (input: Input) => Promise<void>,
  onFailure: (error: unknown, input: Input) => void,
): Promise<void> {
  const rest = inputs.values();
  const workOff = async () => {
    for (const input of rest) await work(input).catch((error: unknown) => onFailure(error, input));
  };
  await Promise.all(Array.from({ length: count }, workOff));
}

async function heldFindings(node: HostileNode, filesBefore: number | undefined): Promise<Finding[]> {
  const held = await untilNothingIsHeld(node.config).then(
    () => "none",
    (error: unknown) => String(error),
  );
  const files = () => (node.openFiles() ?? 0) - (filesBefore ?? 0);
  // Connections that were hung up on are closed a little later.
  await until(() => files() <= openFilesMore, "connections are closed", 30_000).catch(() => undefined);
  return [
    { what: "rooms and presence left", isGood: held === "none", seen: held },
    { what: "open files, more than before", isGood: files() <= openFilesMore, seen: String(files()) },
  ];
}

async function endFindings(node: HostileNode): Promise<Finding[]> {
  // A 503 would say that a part was lost on the way.
  const { status } = await node.call("GET", "/readyz", undefined, { as: null });
  const code = await node.stop();
  return [
    { what: "the process is the same, and ready", isGood: status === 200, seen: String(status) },
    { what: "it ends in good order", isGood: code === 0, seen: `exit code ${code}` },
  ];
}

function memoryFinding(resident: readonly number[]): Finding {
  const third = Math.floor(resident.length / 3);
  const second = median(resident.slice(third, 2 * third));
  const last = median(resident.slice(2 * third));
  // Of a short run nothing can be said.
  const isGood = resident.length < 30 || last <= second * growthMax;
  const steps = [resident[0] ?? 0, resident[third] ?? 0, resident.at(-1) ?? 0].map(mib).join(", ");
  return {
    what: "resident memory: second third, last third (start, warm, end)",
    isGood,
    seen: `${mib(second)}, ${mib(last)} (${steps})`,
  };
}

function median(values: readonly number[]): number {
  return values.toSorted((one, other) => one - other)[Math.floor(values.length / 2)] ?? 0;
}

const mib = (bytes: number) => `${Math.round(bytes / 2 ** 20)} MiB`;

function shown(input: unknown): string {
  return fc.stringify(input).slice(0, 1500);
}

function reportOf(ledger: Ledger, findings: readonly Finding[], title: string): string {
  const table = (rows: readonly (readonly [string, string | number])[]) =>
    rows.map(([name, value]) => `  ${name.padEnd(78)} ${value}`).join("\n");
  const sorted = (counts: ReadonlyMap<string, number>) =>
    [...counts].toSorted(([one], [other]) => (one < other ? -1 : 1));
  return [
    title,
    "\nInputs",
    table(sorted(ledger.inputs)),
    "\nAnswers",
    table(sorted(ledger.answers)),
    "\nVerdict",
    table(findings.map(({ what, isGood, seen }) => [`${isGood ? "good" : "BAD "}  ${what}`, seen])),
    ...ledger.violations,
  ].join("\n");
}
