// What clients sent, were answered and got is held against what stands in Postgres and Kafka. Each judge answers the
// faults that it found, as lines that name the guarantee, the conversation and the numbers; none is good.
import type { Config } from "../../src/config.ts";
import type { ConsumedRecord } from "../../src/platform/kafka.ts";
import type { Postgres } from "../../src/platform/postgres.ts";
import { firstOccurrences, shardOf, upTo } from "../support/walk.ts";
import type { Acknowledgement, Message } from "./load.ts";
import type { Reader, ReceivedEvent } from "./readers.ts";

/** What was acknowledged, by conversation: the message with number n at n - 1. */
export type Ledger = Map<string, Message[]>;

/** A record, and where it was read. */
export type ReadRecord = ConsumedRecord & { partition: number };

const shownMax = 3;
const statesAtOnce = 16;

/** What clients were told: the base of all other judgements. */
export function ledgerOf(messages: Message[]): Ledger {
  const acknowledged = messages.filter((message) => firstAnswer(message) !== undefined);
  const ledger = Map.groupBy(acknowledged, ({ conversationId }) => conversationId);
  for (const list of ledger.values()) list.sort((one, other) => numberOf(one) - numberOf(other));
  return ledger;
}

/** `isRetried`: an answer may have been lost, and with it the only one that was no replay. */
export function judgeAnswers(messages: Message[], ledger: Ledger, isRetried: boolean): string[] {
  const faults: string[] = [];
  for (const { messageId, conversationId, copies } of messages) {
    const which = `message ${messageId} in ${conversationId}`;
    const answers = copies.flatMap(({ answer }) => answer ?? []);
    const failures = copies.flatMap(({ answer, failure }) => (answer === undefined ? [failure] : []));
    if (failures.length > 0) faults.push(`every copy is acknowledged: ${which} got ${failures.join(", ")}`);
    const numbers = answers.map((answer) => answer.sequence_number);
    const times = answers.map((answer) => answer.created_at);
    if (new Set(numbers).size > 1) faults.push(`one number for all copies: ${which} has ${numbers.join()}`);
    if (new Set(times).size > 1) faults.push(`one time for all copies: ${which} has ${times.join()}`);
    const originals = answers.filter(({ replay }) => !replay).length;
    if (originals > 1 || (originals === 0 && !isRetried)) {
      faults.push(`one answer is no replay: ${which} has ${originals} of ${answers.length}`);
    }
  }
  for (const [id, list] of ledger) {
    const numbers = list.map(numberOf);
    faults.push(...unlessEqual(`acknowledged numbers are 1..n in ${id}`, numbers, upTo(list.length)));
  }
  return few(faults);
}

/** Every message once, under the number that was acknowledged. */
export async function judgePostgres(postgres: Postgres, ledger: Ledger): Promise<string[]> {
  const rows = await postgres.query<{
    conversation_id: string;
    sequence_number: number;
    message_id: string;
    last_sequence_number: number;
  }>(`select m.conversation_id, m.sequence_number, m.message_id, c.last_sequence_number
      from messages m join conversations c on c.id = m.conversation_id order by 1, 2`);
  const stored = Map.groupBy(rows, (row) => row.conversation_id);
  const faults: string[] = [];
  for (const id of new Set([...ledger.keys(), ...stored.keys()])) {
    const list = ledger.get(id) ?? [];
    const found = stored.get(id) ?? [];
    const numbers = found.map((row) => row.sequence_number);
    const numbered = unlessEqual(`Postgres has 1..n in ${id}`, numbers, upTo(list.length));
    faults.push(...numbered);
    const last = found[0]?.last_sequence_number ?? 0;
    if (last !== list.length) faults.push(`last_sequence_number of ${id}: ${last}, not ${list.length}`);
    if (numbered.length > 0) continue;
    const wanted = list.map((message) => message.messageId);
    const ids = found.map((row) => row.message_id);
    faults.push(...unlessEqual(`Postgres has the acknowledged messages of ${id}`, ids, wanted));
  }
  return few(faults);
}

/** Each reader has exactly after+1..n of each of its conversations, in order, as it was posted. */
export function judgeReaders(readers: Reader[], ledger: Ledger): string[] {
  return readers.flatMap(({ name, places, faults }) => {
    const found = faults.map((fault) => `${name}: ${fault}`);
    for (const [id, { after = 0, events }] of places) {
      const list = ledger.get(id) ?? [];
      const numbers = events.map((event) => event.sequence_number);
      const wanted = upTo(list.length).slice(after);
      found.push(
        ...unlessEqual(`${name} has ${after + 1}..n of ${id} once and in order`, numbers, wanted),
        ...events.flatMap((event) => contentFaults(name, event, list)),
      );
    }
    return few(found);
  });
}

/** What a topic must have, and what of it may differ. */
export interface TopicExpectation {
  ledger: Ledger;
  config: Config;
  /** The outbox topic tells the router of each conversation's channels, the public ones tell nobody. */
  channelsOf?: (conversationId: string) => string[];
}

/** First occurrences are 1..n in order, on one partition, with headers and values as the contract says. */
export function judgeTopic(topic: string, records: ReadRecord[], wanted: TopicExpectation): string[] {
  const { ledger, config } = wanted;
  const byKey = Map.groupBy(records, (record) => String(record.key));
  const faults: string[] = [];
  for (const key of byKey.keys()) {
    if (!ledger.has(key.replace("conversation:", ""))) faults.push(`${topic} has nothing of ${key}`);
  }
  for (const [id, list] of ledger) {
    const found = byKey.get(`conversation:${id}`) ?? [];
    const numbers = firstOccurrences(found.map(({ headers }) => Number(headers["sequence_number"])));
    faults.push(...unlessEqual(`${topic} has 1..n of ${id} by first occurrence`, numbers, upTo(list.length)));
    const partitions = [...new Set(found.map(({ partition }) => partition))];
    const partition = shardOf(config, id);
    faults.push(...unlessEqual(`${topic} has ${id} on murmur2's partition`, partitions, [partition]));
    const channels = wanted.channelsOf?.(id) ?? [];
    for (const record of found) faults.push(...recordFaults(topic, record, list, channels));
  }
  return few(faults);
}

/** Every message is `delivered`, as a node answers it to a member. */
export async function judgeStates(ledger: Ledger, url: string, token: string): Promise<string[]> {
  const faults: string[] = [];
  const paths = [...ledger].flatMap(([id, list]) =>
    list.map((_, index) => `/v1/conversations/${id}/messages/${index + 1}`),
  );
  let taken = 0;
  const readOn = async () => {
    for (;;) {
      const path = paths[taken];
      if (path === undefined) return;
      taken += 1;
      const answer = await fetch(url + path, { headers: { authorization: `Bearer ${token}` } });
      const { state } = (await answer.json()) as { state?: string };
      if (state !== "delivered") faults.push(`every state is delivered: ${path} ${answer.status} ${state}`);
    }
  };
  await Promise.all(upTo(statesAtOnce).map(readOn));
  return few(faults);
}

function contentFaults(where: string, event: ReceivedEvent, list: Message[]): string[] {
  const message = list[event.sequence_number - 1];
  const wanted = message && eventOf(message);
  if (wanted && Bun.deepEquals(event, { type: "message", ...wanted })) return [];
  if (wanted && Bun.deepEquals(event, wanted)) return [];
  return [`${where} has what was posted: ${JSON.stringify(event)}, not ${JSON.stringify(wanted)}`];
}

function recordFaults(topic: string, record: ReadRecord, list: Message[], channels: string[]): string[] {
  const { ce_source, traceparent, ...headers } = record.headers;
  const number = Number(headers["sequence_number"]);
  const message = list[number - 1];
  if (message === undefined) return [`${topic} has number ${number} of ${record.key}, which nobody posted`];
  const where = `${topic} ${record.key} ${number}`;
  const { conversationId, messageId } = message;
  const faults: string[] = [];
  const wanted = {
    ce_specversion: "1.0",
    ce_id: `${conversationId}:${number}`,
    ce_type: "chat4all.message.created.v1",
    ce_subject: conversationId,
    ce_time: firstAnswer(message)?.created_at ?? "",
    "content-type": "application/json",
    message_id: messageId,
    sequence_number: String(number),
    ...(channels.length > 0 ? { channels: channels.join(",") } : {}),
  };
  if (!Bun.deepEquals(headers, wanted)) {
    faults.push(`${where} has headers ${JSON.stringify(headers)}, not ${JSON.stringify(wanted)}`);
  }
  if (!ce_source) faults.push(`${where} has no ce_source`);
  const [, traceId = ""] = /^00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}$/.exec(traceparent ?? "") ?? [];
  const traceIds = originalTraceIds(message);
  if (!traceIds.includes(traceId)) {
    faults.push(`${where} is in its request's trace: ${traceparent}, not ${traceIds.join(" or ")}`);
  }
  const value = String(record.value);
  if (!Bun.deepEquals(JSON.parse(value), eventOf(message))) {
    faults.push(`${where} has what was posted: ${value}, not ${JSON.stringify(eventOf(message))}`);
  }
  return faults;
}

/** The event that a message must have become. */
function eventOf(message: Message) {
  const { conversationId, messageId, senderId, payload, metadata } = message;
  return {
    event: "message.created",
    conversation_id: conversationId,
    sequence_number: numberOf(message),
    message_id: messageId,
    sender_id: senderId,
    payload,
    ...(metadata === undefined ? {} : { metadata }),
    created_at: firstAnswer(message)?.created_at,
  };
}

/** Of the request that stored it; of all that may have, where the answer that would tell was lost. */
function originalTraceIds({ copies }: Message): string[] {
  const original = copies.find(({ answer }) => answer?.replay === false);
  return (original === undefined ? copies : [original]).flatMap(({ traceIds }) => traceIds);
}

function firstAnswer({ copies }: Message): Acknowledgement | undefined {
  return copies.find(({ answer }) => answer !== undefined)?.answer;
}

function numberOf(message: Message): number {
  return firstAnswer(message)?.sequence_number ?? 0;
}

/** One line that shows where two lists part, or nothing. */
function unlessEqual<Item>(guarantee: string, found: Item[], wanted: Item[]): string[] {
  if (Bun.deepEquals(found, wanted)) return [];
  const length = Math.max(found.length, wanted.length);
  const at = upTo(length).findIndex((_, index) => found[index] !== wanted[index]);
  const around = (list: Item[]) => `[${list.slice(Math.max(0, at - 3), at + 4).join(" ")}]`;
  return [
    `${guarantee}: ${found.length} instead of ${wanted.length}; from place ${at + 1} on, ` +
      `${around(found)} where ${around(wanted)} should be`,
  ];
}

/** A few of each kind: where thousands broke the same guarantee, another one must still be seen. */
function few(faults: string[]): string[] {
  const kinds = Map.groupBy(faults, (fault) =>
    fault.replace(/: .*/s, "").replaceAll(/[0-9a-f-]{36}|\d+/g, ""),
  );
  return kinds
    .values()
    .toArray()
    .flatMap((same) => {
      const more = same.length > shownMax ? [`and ${same.length - shownMax} more like these`] : [];
      return [...same.slice(0, shownMax), ...more];
    });
}
