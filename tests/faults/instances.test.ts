// One node of two that is killed, paused or drained in the middle of its work: nothing that was acknowledged is lost,
// doubled or out of order for anybody, and the other one has its shards soon.
import { expect, setDefaultTimeout, test } from "bun:test";
import { topicNames } from "../../src/config.ts";
import { readTopic } from "../../src/platform/kafka.ts";
import { startServer, type TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";
import { kafkaOf } from "../support/walk.ts";
import type { Load } from "../walk/load.ts";
import { type NodeProcess, startNode } from "../walk/node-process.ts";
import { openSocketReader, type Reader } from "../walk/readers.ts";
import {
  judgeScene,
  makeScene,
  reader,
  type Scene,
  sendOneMore,
  startSending,
  untilWorking,
} from "../walk/scene.ts";

setDefaultTimeout(120_000);

const size = { conversations: 40, messages: 2_000 };
/** A lease of 4 s, a renewal, and a busy machine. */
const takenOverMsMax = 7_000;
const retryForMs = 40_000;
/** Longer than a lease, a session of the consumer group, and a request. */
const pausedMs = 13_000;

/** Two nodes, one of which is a process to be harmed, and what is sent to them. */
interface Stage {
  server: TestServer;
  node: NodeProcess;
  scene: Scene;
}

async function onStage(act: (stage: Stage) => Promise<void>): Promise<void> {
  await using server = await startServer();
  await using node = await startNode(server.config);
  await untilWorking(server, [server.url, node.url], 2);
  await act({ server, node, scene: await makeScene(server, size) });
}

test("a node that is killed is taken over, and its clients resume without a gap", () =>
  onStage(async (stage) => {
    const { server, node } = stage;
    const readers = await openReaders(stage, () => server.url);
    const load = await beginSending(stage);
    process.kill(node.pid, "SIGKILL");
    await node.exited;
    const killedAtMs = performance.now();
    await untilOneOwnsAll(stage);
    expect(performance.now() - killedAtMs).toBeLessThan(takenOverMsMax);
    await load.done;
    expect(await judge(stage, readers)).toEqual([]);
  }));

test("a node that is paused is taken over, and does no harm when it wakes", () =>
  onStage(async (stage) => {
    const { server, node } = stage;
    // They stay with it.
    const readers = await openReaders(stage);
    const load = await beginSending(stage);
    process.kill(node.pid, "SIGSTOP");
    const pausedAtMs = performance.now();
    await untilOneOwnsAll(stage);
    expect(performance.now() - pausedAtMs).toBeLessThan(takenOverMsMax);
    await Bun.sleep(Math.max(0, pausedMs - (performance.now() - pausedAtMs)));
    process.kill(node.pid, "SIGCONT");
    await load.done;
    expect(await judge(stage, readers)).toEqual([]);
    await untilWorking(server, [server.url, node.url], 2);
  }));

test("a node that is drained loses nothing, and publishes nothing twice", () =>
  onStage(async (stage) => {
    const { server, node } = stage;
    const readers = await openReaders(stage, () => server.url);
    const load = await beginSending(stage);
    expect((await node.stop()).code).toBe(0);
    await load.done;
    expect(await judge(stage, readers)).toEqual([]);
    const { outbox, events } = topicNames(server.config);
    for (const topic of [outbox, events]) {
      const records = await readTopic(kafkaOf(server.config), topic);
      expect(records.length).toBe(new Set(records.map(({ headers }) => headers["ce_id"])).size);
    }
  }));

/** Sends to both nodes; resolves when a quarter is through. */
async function beginSending({ server, node, scene }: Stage): Promise<Load> {
  const load = startSending(scene, () => [server.url, node.url], retryForMs);
  await load.reached(size.messages / 4);
  return load;
}

/** Sockets at both nodes, of all conversations; where they go on when they are closed. */
function openReaders({ server, node, scene }: Stage, resumeAt?: () => string): Promise<Reader[]> {
  const token = scene.tokens.get(reader) ?? "";
  const conversationIds = [scene.hotId, ...scene.conversationIds];
  return Promise.all(
    [server.url, node.url].map((url) =>
      openSocketReader({
        name: `socket at ${url}`,
        url,
        token,
        after: 0,
        conversationIds,
        ...(resumeAt && { resumeAt }),
      }),
    ),
  );
}

async function untilOneOwnsAll({ server }: Stage) {
  await until(async () => {
    const owned = await server.postgres.query(
      "select owner, count(*) from shard_leases where expires_at > now() group by owner having count(*) = 4",
    );
    return owned.length === 1;
  }, "one poller has every shard");
}

async function judge({ server, scene }: Stage, readers: Reader[]): Promise<string[]> {
  await sendOneMore(scene, () => [server.url]);
  const faults = await judgeScene(scene, readers, server.url, { isRetried: true });
  for (const one of readers) one.close();
  return faults;
}
