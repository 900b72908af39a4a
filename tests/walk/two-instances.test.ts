// Two nodes on the same servers: what is posted to either is numbered once, reaches every reader on both in order
// and exactly once, and stands in every topic in the same order.
//
// WALK_MESSAGES: how many messages each test sends; 6000 if not set.
import { expect, setDefaultTimeout, test } from "bun:test";
import { topicNames } from "../../src/config.ts";
import { openPublisher, readTopic } from "../../src/platform/kafka.ts";
import { startServer, type TestServer } from "../support/server.ts";
import { kafkaOf, shardOf, untilRouted } from "../support/walk.ts";
import { startNode } from "./node-process.ts";
import { openSocketReader, openStreamReader, type Reader } from "./readers.ts";
import {
  judgeScene,
  makeScene,
  reader,
  type Scene,
  sendOneMore,
  settleMsMax,
  startSending,
  untilWorking,
} from "./scene.ts";

const messageCount = Number(process.env["WALK_MESSAGES"] ?? 6_000);
const conversationCount = 1_000;
const sampleCount = 50;
const streamedCount = 3;
const repeatedCount = 100;

setDefaultTimeout(60_000 + 10 * messageCount);

test("two nodes of one process number, deliver and publish as one", async () => {
  await using server = await startServer();
  const { url } = await server.startSibling();
  expect(await walk(server, [server.url, url])).toEqual([]);
});

test("two nodes that are processes number, deliver and publish as one", async () => {
  await using server = await startServer();
  await using node = await startNode(server.config);
  expect(await walk(server, [server.url, node.url])).toEqual([]);
});

/** Answers the faults. */
async function walk(server: TestServer, urls: [string, string]): Promise<string[]> {
  await untilWorking(server, urls, urls.length);
  const scene = await makeScene(server, { conversations: conversationCount, messages: messageCount });
  const readers: Reader[] = [];
  const join = async (kind: string, after: number | undefined) => {
    const joined = await Promise.all(urls.map((url) => openReaders(scene, kind, url, after)));
    readers.push(...joined.flat());
  };

  await join("early", 0);
  await join("moving", 0);
  const load = startSending(scene, () => urls);
  await load.reached(Math.floor(messageCount / 4));
  await join("from now on", undefined);
  await load.reached(Math.floor(messageCount / 3));
  await join("late", 0);
  const moving = readers.filter(({ name }) => name.includes("moving"));
  for (const part of [0.5, 0.75]) {
    await load.reached(Math.floor(messageCount * part));
    await Promise.all(moving.map((one, index) => one.moveTo(urls[index % 2] as string)));
  }
  await load.done;

  const repeated = await repeatOldRecords(scene);
  await sendOneMore(scene, () => urls);
  const faults = await judgeScene(scene, readers, urls[1], { isRetried: false });
  for (const one of readers) one.close();
  return [...faults, ...(await judgeRepeats(scene, repeated))];
}

/** A socket with the hot conversation and a sample of the others, and event streams of the hot one and a few. */
function openReaders(scene: Scene, kind: string, url: string, after: number | undefined): Promise<Reader[]> {
  const { hotId, conversationIds } = scene;
  const token = scene.tokens.get(reader) ?? "";
  const step = conversationIds.length / sampleCount;
  const sample = conversationIds.filter((_, index) => index % step === 0);
  // An event stream does not say where "from now on" begins.
  const streamed = after === undefined ? [] : [hotId, ...sample.slice(0, streamedCount)];
  return Promise.all([
    openSocketReader({
      name: `${kind} socket at ${url}`,
      url,
      token,
      after,
      conversationIds: [hotId, ...sample],
    }),
    ...streamed.map((conversationId) =>
      openStreamReader({ name: `${kind} event stream at ${url}`, url, token, after, conversationId }),
    ),
  ]);
}

/** Publishes the oldest records of the hot conversation again, as a poller does that wakes up too late. */
async function repeatOldRecords(scene: Scene): Promise<string[]> {
  const { server, hotId } = scene;
  await untilRouted(server.postgres, settleMsMax(scene));
  const kafka = kafkaOf(server.config);
  const { outbox } = topicNames(server.config);
  const records = await readTopic(kafka, outbox);
  const oldest = records.filter(({ headers }) => headers["ce_subject"] === hotId).slice(0, repeatedCount);
  const publisher = openPublisher(kafka);
  const again = oldest.map(({ key, value, headers }) => ({
    key: String(key),
    value: String(value),
    headers,
  }));
  await publisher.publish(outbox, shardOf(server.config, hotId), again, new AbortController().signal);
  await publisher.close();
  return oldest.map(({ headers }) => String(headers["ce_id"]));
}

/** What a poller repeated is in the events topic once: a later message of the same partition is there already. */
async function judgeRepeats({ server }: Scene, repeated: string[]): Promise<string[]> {
  const records = await readTopic(kafkaOf(server.config), topicNames(server.config).events);
  const counts = Map.groupBy(records, ({ headers }) => String(headers["ce_id"]));
  const doubled = repeated.filter((id) => counts.get(id)?.length !== 1);
  if (repeated.length > 0 && doubled.length === 0) return [];
  return [`the router drops repeats: ${doubled.length} of ${repeated.length} came through, as ${doubled[0]}`];
}
