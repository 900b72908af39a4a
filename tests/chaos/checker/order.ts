// Real time: an operation that was over before another of the same conversation began has the lower number, a reader
// sees nothing before it was sent, and cursors never fall.
import { type History, invokedAtMs, knownAtMs, type Receipt } from "../history.ts";
import { Judgement, seconds } from "./judgement.ts";
import type { Placed } from "./ledger.ts";

/** A number, the time before which nobody had asked for it, and the one at which somebody knew it. */
interface Numbered {
  number: number;
  what: string;
  invokedAtMs: number;
  knownAtMs: number;
}

/** Numbers, and what readers saw, against the times of the operations that they come from. */
export function judgeOrder(history: History, placed: Placed): Judgement {
  const judgement = new Judgement("order");
  const byConversation = new Map<string, Numbered[]>();
  for (const [post, { number }] of placed) {
    const list = byConversation.get(post.conversationId) ?? [];
    byConversation.set(post.conversationId, list);
    const what = `${post.kind} ${post.key}`;
    list.push({ number, what, invokedAtMs: invokedAtMs(post), knownAtMs: knownAtMs(post) });
  }
  for (const [id, list] of byConversation) judgeConversation(id, list, judgement);
  for (const track of history.tracks) {
    const known = new Map((byConversation.get(track.conversationId) ?? []).map((one) => [one.number, one]));
    for (const [index, number] of track.numbers.entries()) {
      const seenAtMs = track.atMs[index] ?? 0;
      const cause = known.get(number);
      if (cause === undefined || cause.invokedAtMs <= seenAtMs) continue;
      const times = `at ${seconds(seenAtMs)}, sent only at ${seconds(cause.invokedAtMs)}`;
      judgement.broken(`${track.conversationId}: ${track.reader} got ${number} (${cause.what}) ${times}`);
    }
  }
  return judgement;
}

/** By number, from the first on: none was known before one that stands before it began. */
function judgeConversation(id: string, list: Numbered[], judgement: Judgement): void {
  list.sort((one, other) => one.number - other.number);
  let latest: Numbered | undefined;
  for (const one of list) {
    judgement.checked += 1;
    if (latest !== undefined && one.knownAtMs < latest.invokedAtMs) {
      judgement.broken(
        `${id}: ${one.number} (${one.what}) was acknowledged at ${seconds(one.knownAtMs)}, ` +
          `but ${latest.number} (${latest.what}) was sent only at ${seconds(latest.invokedAtMs)}`,
      );
    }
    if (latest === undefined || one.invokedAtMs > latest.invokedAtMs) latest = one;
  }
}

/** Cursors as they were answered, and as they stand in the end (`cursors`: by conversation and user). */
export function judgeReceipts(
  receipts: Receipt[],
  cursors: Map<string, { delivered: number; read: number }>,
): Judgement {
  const judgement = new Judgement("receipts");
  const byMember = Map.groupBy(receipts, ({ conversationId, userId }) => `${conversationId} ${userId}`);
  for (const [member, list] of byMember) {
    for (const [index, { asked, answered, instance, completedAtMs }] of list.entries()) {
      judgement.checked += 1;
      const where = `${member} at ${instance}, ${seconds(completedAtMs)}`;
      if (answered.read < asked.read || answered.delivered < Math.max(asked.delivered, asked.read)) {
        judgement.broken(`${where}: asked for ${pair(asked)}, answered ${pair(answered)}`);
      }
      const earlier = list
        .slice(0, index)
        .filter((one) => one.completedAtMs < (list[index]?.invokedAtMs ?? 0));
      const fallen = earlier.find((one) => isBelow(answered, one.answered));
      if (fallen) judgement.broken(`${where}: ${pair(answered)} after ${pair(fallen.answered)}`);
    }
    const final = cursors.get(member);
    const highest = list.find(({ answered }) => final === undefined || isBelow(final, answered));
    if (highest !== undefined) {
      judgement.broken(`${member}: ends at ${final && pair(final)} after ${pair(highest.answered)}`);
    }
  }
  return judgement;
}

function isBelow(one: Receipt["answered"], other: Receipt["answered"]): boolean {
  return one.delivered < other.delivered || one.read < other.read;
}

function pair({ delivered, read }: Receipt["answered"]): string {
  return `delivered ${delivered} and read ${read}`;
}
