// Everything that was recorded, held against everything that is there in the end.
import { topicNames } from "../../src/config.ts";
import { readTopic } from "../../src/platform/kafka.ts";
import type { Postgres } from "../../src/platform/postgres.ts";
import { Judgement, merged } from "./checker/judgement.ts";
import { judgeNumbers, judgePosts } from "./checker/ledger.ts";
import { judgeMembers } from "./checker/members.ts";
import { judgeOrder, judgeReceipts } from "./checker/order.ts";
import { judgePages } from "./checker/pages.ts";
import { readStored, type Stored } from "./checker/stored.ts";
import { judgeStreams } from "./checker/streams.ts";
import { TopicCheck } from "./checker/topics.ts";
import { type Called, call } from "./clients/calls.ts";
import type { World } from "./clients/world.ts";
import { type History, type ShownItem, shownDigest } from "./history.ts";
import type { Stage } from "./stage.ts";

/** One judgement for each guarantee that is about what is there in the end. */
export interface Verdict {
  judgements: Judgement[];
  /** Records that were in a topic more than once, which is permitted. */
  repeats: number;
}

const statesAsked = 200;
const pageMax = 500;
const pagesOfEach = 3;
const askTriesMax = 20;
const askPauseMs = 250;

/** Reads all and judges all. */
export async function judge(stage: Stage, world: World, report: (line: string) => void): Promise<Verdict> {
  const { history } = world;
  const { postgres } = stage;
  report("verdict: reading the history once more over HTTP");
  await readFinalPages(world);
  report("verdict: reading Postgres");
  const ids = await postgres.query<{ id: string }>("select id from conversations");
  const stored = await readStored(
    postgres,
    ids.map(({ id }) => id),
  );
  const { judgements, placed } = judgePosts(history, stored);
  const topics = await judgeTopics(stage, history, stored, report);
  report("verdict: comparing");
  return {
    judgements: merged([
      ...judgements,
      judgeNumbers(stored),
      judgeOrder(history, placed),
      judgePages(history, stored, placed),
      judgeReceipts(history.receipts, await readCursors(postgres)),
      judgeMembers(history, stored),
      judgeStreams(history.tracks, stored),
      topics.judgement,
      await judgeDelivered(postgres, world, stored),
    ]),
    repeats: topics.repeats,
  };
}

/** One topic after the other, since each is held in memory while it is looked at. */
async function judgeTopics(
  { config, kafka }: Stage,
  history: History,
  stored: Stored,
  report: (line: string) => void,
): Promise<{ judgement: Judgement; repeats: number }> {
  const names = topicNames(config);
  const channels = new Map(
    history.conversations.map((conversation) => [conversation.id, conversation.channels]),
  );
  const wanted: [string, (id: string) => boolean][] = [
    [names.outbox, () => true],
    [names.events, () => true],
    ...config.CHANNELS.map((channel): [string, (id: string) => boolean] => [
      names.channel(channel),
      (id) => channels.get(id)?.includes(channel) === true,
    ]),
  ];
  const judged: Judgement[] = [];
  let repeats = 0;
  for (const [topic, carried] of wanted) {
    report(`verdict: reading topic ${topic}`);
    const check = new TopicCheck(topic, stored, carried, config.KAFKA_PARTITIONS);
    for (const record of await readTopic(kafka, topic)) check.take(record.partition, record);
    judged.push(check.end());
    repeats += check.repeats;
  }
  return { judgement: merged(judged)[0] as Judgement, repeats };
}

/** The newest pages of each conversation, by any instance, as a member reads them. */
async function readFinalPages(world: World): Promise<void> {
  for (const { id, memberIds } of world.history.conversations) {
    const user = memberIds[0] ?? "";
    const knownLast = world.knownLast.get(id) ?? 0;
    let before: number | undefined;
    for (let pages = 0; pages < pagesOfEach; pages += 1) {
      const query = before === undefined ? `limit=${pageMax}` : `limit=${pageMax}&before=${before}`;
      const path = `/v1/conversations/${id}/messages?${query}`;
      const { tried, body } = await ask(world, user, path);
      if (tried.outcome !== "ok") throw new Error(`no history of ${id}: ${tried.code}`);
      const items: ShownItem[] = body.items;
      const { instance, invokedAtMs, completedAtMs } = tried;
      world.history.pages.push({
        conversationId: id,
        userId: user,
        instance,
        invokedAtMs,
        completedAtMs,
        limit: pageMax,
        knownLast,
        ...(before === undefined ? {} : { before }),
        numbers: items.map((item) => item.sequence_number),
        digests: items.map(shownDigest),
        hasMore: body.has_more,
      });
      before = items.at(-1)?.sequence_number;
      if (!body.has_more || before === undefined) break;
    }
  }
}

async function readCursors(postgres: Postgres) {
  const rows = await postgres.query<{
    conversation_id: string;
    user_id: string;
    delivered: number;
    read: number;
  }>("select conversation_id, user_id, delivered, read from members");
  return new Map(rows.map((row) => [`${row.conversation_id} ${row.user_id}`, row]));
}

/** No dead letter, and every message of a sample is told to be delivered. */
async function judgeDelivered(postgres: Postgres, world: World, stored: Stored): Promise<Judgement> {
  const judgement = new Judgement("delivered");
  const letters = await postgres.query<{
    stage: string;
    conversation_id: string;
    sequence_number: number;
    reason: string;
  }>("select stage, conversation_id, sequence_number, reason from dead_letters order by parked_at");
  for (const { stage, conversation_id, sequence_number, reason } of letters) {
    judgement.broken(`${conversation_id}: ${sequence_number} is a dead letter of the ${stage}: ${reason}`);
  }
  const known = world.history.conversations.filter(({ id }) => (stored.get(id)?.events.length ?? 0) > 0);
  for (let asked = 0; asked < statesAsked && known.length > 0; asked += 1) {
    const { id, memberIds } = world.random.pick(known);
    const { number } = world.random.pick(stored.get(id)?.events ?? []);
    const path = `/v1/conversations/${id}/messages/${number}`;
    const { body, status, tried } = await ask(world, memberIds[0] ?? "", path);
    judgement.checked += 1;
    if (body?.state !== "delivered")
      judgement.broken(`${id}: ${number} is ${body?.state ?? `${status} ${tried.code}`}, not delivered`);
  }
  return judgement;
}

/** Of any instance; again for a while where it answers 503. */
async function ask(world: World, user: string, path: string): Promise<Called> {
  for (let tries = 1; ; tries += 1) {
    const target = world.random.pick(world.targets.all);
    const called = await call(world, target, { client: "verdict", user, method: "GET", path });
    if (called.tried.outcome !== "unknown" || tries === askTriesMax) return called;
    await Bun.sleep(askPauseMs);
  }
}
