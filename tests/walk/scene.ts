// What every proof of the walk begins with (conversations, their members, messages to send) and ends with (everything
// that clients and topics have, judged).
import { topicNames } from "../../src/config.ts";
import { readTopic } from "../../src/platform/kafka.ts";
import type { TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";
import { kafkaOf, untilRouted, upTo } from "../support/walk.ts";
import {
  judgeAnswers,
  judgePostgres,
  judgeReaders,
  judgeStates,
  judgeTopic,
  type Ledger,
  ledgerOf,
} from "./judge.ts";
import { type Load, type Message, planMessages, startLoad } from "./load.ts";
import type { Reader } from "./readers.ts";

/** Conversations and the messages that are to go to them. */
export interface Scene {
  server: TestServer;
  /** Gets every fourth message. */
  hotId: string;
  conversationIds: string[];
  channelsOf: Map<string, string[]>;
  senders: string[];
  tokens: Map<string, string>;
  messages: Message[];
}

/** How large a scene is. */
export interface SceneSize {
  conversations: number;
  messages: number;
}

/** Who reads in every conversation; also a sender. */
export const reader = "alice";

const senders = [reader, "bob", "carol", "dave", "erin", "frank", "grace", "heidi"];
const callers = 64;

/** Makes the conversations: each third carries the channel support, each fifth and the hot one carry audit. */
export async function makeScene(server: TestServer, size: SceneSize): Promise<Scene> {
  const tokens = new Map(
    await Promise.all(senders.map(async (user) => [user, await server.token(user)] as const)),
  );
  const channelsOf = new Map<string, string[]>();
  const make = async (number: number) => {
    const channels = [...(number % 3 === 0 ? ["support"] : []), ...(number % 5 === 0 ? ["audit"] : [])];
    const id = await server.makeGroup(senders.slice(1), { channels });
    channelsOf.set(id, channels);
    return id;
  };
  const hotId = await make(5);
  const conversationIds: string[] = [];
  for (let made = 0; made < size.conversations; made += callers) {
    const next = upTo(Math.min(callers, size.conversations - made)).map((number) => make(made + number));
    conversationIds.push(...(await Promise.all(next)));
  }
  const messages = planMessages(hotId, conversationIds, senders, size.messages);
  return { server, hotId, conversationIds, channelsOf, senders, tokens, messages };
}

/** Resolves when so many pollers have shards, and these nodes say that all they need is there. */
export async function untilWorking(server: TestServer, urls: string[], pollers: number): Promise<void> {
  await until(async () => {
    const owners = await server.postgres.query(
      "select distinct owner from shard_leases where owner is not null",
    );
    const states = await Promise.all(urls.map(readiness));
    return owners.length === pollers && states.every((state) => state === "ok");
  }, "the nodes work");
}

/** For whatever should come by itself once the callers are done. */
export function settleMsMax({ messages }: Scene): number {
  return 20_000 + 2 * messages.length;
}

/** Lets 64 callers send the scene's messages. */
export function startSending(scene: Scene, urls: () => string[], retryForMs = 0): Load {
  return startLoad({ messages: scene.messages, callers, urls, tokens: scene.tokens, retryForMs });
}

/** Sends one message more to the hot conversation. */
export async function sendOneMore(scene: Scene, urls: () => string[]): Promise<void> {
  const messages = planMessages(scene.hotId, [scene.hotId], scene.senders, 1);
  scene.messages.push(...messages);
  await startLoad({ messages, callers: 1, urls, tokens: scene.tokens, retryForMs: 0 }).done;
}

/** Waits until all that was sent is through, and judges every stop; answers the faults. `url`: a node that lives. */
export async function judgeScene(
  scene: Scene,
  readers: Reader[],
  url: string,
  { isRetried }: { isRetried: boolean },
): Promise<string[]> {
  const { server, messages } = scene;
  const ledger = ledgerOf(messages);
  const acknowledged = [
    ...judgeAnswers(messages, ledger, isRetried),
    ...(await judgePostgres(server.postgres, ledger)),
  ];
  // What follows is held against what was acknowledged.
  if (acknowledged.length > 0) return acknowledged;

  // What is missing in the end is told by the judges, with its number.
  const settled = await Promise.allSettled([
    untilRouted(server.postgres, settleMsMax(scene)),
    until(() => readers.every((one) => hasAll(one, ledger)), "the readers have all", settleMsMax(scene)),
  ]);
  const late = settled.flatMap((outcome) => (outcome.status === "rejected" ? [String(outcome.reason)] : []));
  return [
    ...late,
    ...(await judgeTopics(scene, ledger)),
    ...(await judgeStates(ledger, url, scene.tokens.get(reader) ?? "")),
    // Last, so that what comes too much has had the time to come.
    ...judgeReaders(readers, ledger),
  ];
}

async function readiness(url: string): Promise<string> {
  const answer = await fetch(`${url}/readyz`);
  return ((await answer.json()) as { status: string }).status;
}

async function judgeTopics(scene: Scene, ledger: Ledger): Promise<string[]> {
  const { config } = scene.server;
  const topics = topicNames(config);
  const channelsOf = (id: string) => scene.channelsOf.get(id) ?? [];
  const judge = async (topic: string, wanted: Parameters<typeof judgeTopic>[2]) =>
    judgeTopic(topic, await readTopic(kafkaOf(config), topic), wanted);
  const ofChannels = config.CHANNELS.map((channel) => {
    const carried = [...ledger].filter(([id]) => channelsOf(id).includes(channel));
    return judge(topics.channel(channel), { ledger: new Map(carried), config });
  });
  const faults = await Promise.all([
    judge(topics.outbox, { ledger, config, channelsOf }),
    judge(topics.events, { ledger, config }),
    judge(topics.deadLetters, { ledger: new Map(), config }),
    ...ofChannels,
  ]);
  return faults.flat();
}

function hasAll({ places }: Reader, ledger: Ledger): boolean {
  return places
    .entries()
    .every(([id, { after = 0, events }]) => after + events.length >= (ledger.get(id)?.length ?? 0));
}
