// What clients were answered against what is stored: nothing acknowledged is missing or other than was said, nothing
// is stored twice, and nothing that was refused, or that nobody sent.
import { acknowledged, type History, type Post } from "../history.ts";
import { Judgement, seconds } from "./judgement.ts";
import type { Stored, StoredEvent } from "./stored.ts";

/** Every post in the order of its sending, and where it is stored, if it is. */
export type Placed = Map<Post, StoredEvent>;

/** Numbers of each conversation are 1..n, and its last number is n. */
export function judgeNumbers(stored: Stored): Judgement {
  const judgement = new Judgement("numbers");
  for (const { id, lastNumber, events } of stored.values()) {
    let expected = 1;
    for (const { number } of events) {
      judgement.checked += 1;
      if (number > expected) judgement.broken(`${id}: ${expected} to ${number - 1} are missing`);
      else if (number < expected) judgement.broken(`${id}: ${number} is there twice`);
      expected = Math.max(expected, number + 1);
    }
    if (lastNumber !== expected - 1) {
      judgement.broken(`${id}: last_sequence_number is ${lastNumber}, the last event ${expected - 1}`);
    }
  }
  return judgement;
}

/** Holds every post against the rows; answers where each of them is stored, too. */
export function judgePosts(history: History, stored: Stored): { judgements: Judgement[]; placed: Placed } {
  const rows = rowsByKey(stored);
  const acknowledgement = new Judgement("acknowledged");
  const retries = new Judgement("retries");
  const refusals = new Judgement("refusals");
  const placed: Placed = new Map();
  const explained = new Set<StoredEvent>();

  for (const post of history.posts) {
    const found = rows.get(keyOf(post.kind, post.conversationId, post.senderId, post.key)) ?? [];
    const isRefused = post.forbidden !== undefined || post.tries.every(({ outcome }) => outcome === "failed");
    judgeTries(post, retries);
    if (isRefused) {
      for (const row of judgeRefusal(post, found, refusals)) explained.add(row);
      continue;
    }
    if (found.length > 1) {
      retries.broken(`${nameOf(post)} is stored as ${found.map(({ number }) => number).join(" and ")}`);
    }
    const [row] = found;
    judgeStored(post, row, acknowledgement);
    if (row !== undefined) placed.set(post, row);
    for (const one of found) explained.add(one);
  }
  for (const { id, events } of stored.values()) {
    for (const row of events) {
      if (row.userId === undefined && !explained.has(row)) {
        refusals.broken(`${id}: nobody sent ${row.number}, ${row.event} ${row.key} of ${row.senderId}`);
      }
    }
  }
  return { judgements: [acknowledgement, retries, refusals], placed };
}

/** All answers to one message are the same, and at most one of them is no replay. */
function judgeTries(post: Post, retries: Judgement): void {
  const answers = post.tries.filter(({ outcome }) => outcome === "ok");
  const [first] = answers;
  if (first === undefined || post.forbidden !== undefined) return;
  if (post.tries.length > 1) retries.checked += 1;
  const firstTimed = answers.find(({ createdAtMs }) => createdAtMs !== undefined);
  for (const answer of answers) {
    if (answer.number !== first.number) {
      retries.broken(`${nameOf(post)} was acknowledged as ${first.number} and as ${answer.number}`);
    } else if (answer.createdAtMs !== undefined && answer.createdAtMs !== firstTimed?.createdAtMs) {
      retries.broken(`${nameOf(post)} was acknowledged with two times`);
    }
  }
  const originals = answers.filter(({ isReplay }) => isReplay === false).length;
  // None at all is permitted: a server that loses Postgres's answer asks again itself, and is told of a replay.
  if (originals > 1) retries.broken(`${nameOf(post)} was acknowledged as new ${originals} times`);
}

function judgeStored(post: Post, row: StoredEvent | undefined, judgement: Judgement): void {
  const answer = acknowledged(post);
  if (answer !== undefined) judgement.checked += 1;
  if (row === undefined) {
    if (answer === undefined) return;
    const who = `${answer.client} by ${answer.instance} at ${seconds(answer.completedAtMs)}`;
    judgement.broken(`${nameOf(post)} is not stored, but was acknowledged as ${answer.number} to ${who}`);
    return;
  }
  if (answer !== undefined && answer.number !== row.number) {
    judgement.broken(`${nameOf(post)} is stored as ${row.number}, but was acknowledged as ${answer.number}`);
  }
  if (row.said !== post.said) {
    judgement.broken(`${nameOf(post)} is stored as ${row.number} with other content than was sent`);
  }
  const timed = post.tries.find(({ createdAtMs }) => createdAtMs !== undefined);
  if (timed !== undefined && timed.createdAtMs !== row.createdAtMs) {
    judgement.broken(`${nameOf(post)} is stored with another time than was acknowledged`);
  }
}

/** Answers the rows that should not be there. */
function judgeRefusal(post: Post, found: StoredEvent[], judgement: Judgement): StoredEvent[] {
  judgement.checked += 1;
  const why = post.forbidden ?? post.tries[0]?.code ?? "refused";
  const accepted = acknowledged(post);
  if (accepted !== undefined) {
    judgement.broken(`${nameOf(post)} must be refused (${why}), but was acknowledged as ${accepted.number}`);
  }
  // The message whose id was used again is there, and stays.
  const wrong = found.filter(({ said }) => post.forbidden !== "another body" || said === post.said);
  if (accepted === undefined) {
    for (const row of wrong) judgement.broken(`${nameOf(post)} was refused (${why}), but is ${row.number}`);
  }
  return wrong;
}

function rowsByKey(stored: Stored): Map<string, StoredEvent[]> {
  const rows = new Map<string, StoredEvent[]>();
  for (const { id, events } of stored.values()) {
    for (const row of events) {
      const key = keyOf(row.event, id, row.senderId, row.key);
      const others = rows.get(key);
      if (others === undefined) rows.set(key, [row]);
      else others.push(row);
    }
  }
  return rows;
}

function keyOf(kind: string, conversationId: string, senderId: string, key: string): string {
  return `${kind} ${conversationId} ${senderId} ${key}`;
}

function nameOf({ kind, key, senderId, conversationId }: Post): string {
  return `${conversationId}: ${kind} ${key} of ${senderId}`;
}
