// Records of the outbox topic come in, through a consumer group that shares its partitions among all routers;
// records of the public topics leave.
// Guaranteed: what route-batch.ts says of a batch, with one batch of a partition in hand at a time, also while
// partitions move between routers.

import { openHolds } from "../platform/holds.ts";
import type { KafkaBatch } from "../platform/kafka.ts";
import { type KafkaSettings, runConsumer } from "../platform/kafka.ts";
import type { Watchdogs } from "../platform/watchdog.ts";
import { type PartitionMemory, type RouteTools, routeBatch } from "./route-batch.ts";
import { openWatermarks } from "./watermarks.ts";

/** What a router works with; whoever opened it closes it. */
export interface RouterOptions extends Omit<RouteTools, "watermarks" | "onUnknownChannel"> {
  kafka: KafkaSettings;
  groupId: string;
  watchdogs: Watchdogs;
  report(system: "kafka", state: "up" | "degraded"): void;
}

/** A router while it runs. */
export interface Router {
  /** Lets batches in hand end (a few seconds at most), commits what is done, and leaves the group. */
  stop(): Promise<void>;
}

// Longer than a statement may take: beyond, a connection hangs without an error.
const silenceMaxMs = 15_000;
const unknownChannelsMax = 100;
/** Conversations of a partition that may be held back at once; others that cannot be passed then wait untold. */
const heldKeysMax = 100;

/** Joins the group and routes until `stop`. Returns at once, whatever is up. */
export async function startRouter(options: RouterOptions): Promise<Router> {
  const { kafka, groupId, topics, log, watchdogs, report } = options;
  const watermarks = openWatermarks(options.postgres);
  const tools = { ...options, watermarks, onUnknownChannel: logOnce(log) };
  /** By partition: the batch in hand. A stale one may still be ending when the partition comes back. */
  const inHand = new Map<number, Promise<unknown>>();
  /** By partition, until partitions are assigned anew. */
  const memories = new Map<number, PartitionMemory>();

  function memoryOf(partition: number): PartitionMemory {
    const memory = memories.get(partition) ?? { holds: openHolds(heldKeysMax), parked: new Set() };
    memories.set(partition, memory);
    return memory;
  }

  async function onBatch(batch: KafkaBatch): Promise<number> {
    const watchdog = watchdogs.watch(silenceMaxMs);
    const before = watchdog.wait(settled(inHand.get(batch.partition)));
    const routing = before.then(() => routeBatch(tools, batch, memoryOf(batch.partition), watchdog));
    inHand.set(batch.partition, routing);
    try {
      return await routing;
    } finally {
      watchdog.end();
    }
  }

  const consumer = await runConsumer(kafka, {
    groupId,
    topics: [topics.outbox],
    fromBeginning: true,
    onBatch,
    onState(state) {
      if (state === "up") {
        watermarks.forget();
        memories.clear();
      }
      report("kafka", state);
    },
    onError: (error) => log.warn({ err: error }, "batch or consumer failed"),
  });
  return { stop: () => consumer.close() };
}

/** Of each channel, but of no endless number of them. */
function logOnce(log: RouterOptions["log"]) {
  const seen = new Set<string>();
  return (channel: string) => {
    if (seen.has(channel) || seen.size >= unknownChannelsMax) return;
    seen.add(channel);
    log.warn({ channel }, "channel is not among CHANNELS, its events go to the events topic only");
  };
}

async function settled(work: Promise<unknown> | undefined): Promise<void> {
  await work?.catch(() => undefined);
}
