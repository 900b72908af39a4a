// Pages of history, read while others wrote: complete, in order, and not older than what was known when they were
// asked for.
import { type History, invokedAtMs, knownAtMs, type Page, type Post, stateDigest } from "../history.ts";
import { Judgement, seconds } from "./judgement.ts";
import type { Placed } from "./ledger.ts";
import { eventAt, type Stored, type StoredConversation, type StoredEvent } from "./stored.ts";

/** Events that changed a message, in the order of their numbers. */
type Changes = Map<StoredEvent, StoredEvent[]>;

export function judgePages(history: History, stored: Stored, placed: Placed): Judgement {
  const judgement = new Judgement("history");
  const posts = new Map(placed.entries().map(([post, event]) => [event, post]));
  const changes = changesOf(stored);
  for (const page of history.pages) {
    judgement.checked += 1;
    const conversation = stored.get(page.conversationId);
    const faults = [...rangeFaults(page, conversation), ...stateFaults(page, conversation, changes, posts)];
    const [fault] = faults;
    const what = page.after === undefined ? `before ${page.before ?? "the end"}` : `after ${page.after}`;
    const where = `${page.conversationId}: ${what}, asked of ${page.instance} at ${seconds(page.invokedAtMs)}`;
    if (fault !== undefined) judgement.broken(`${where}: ${fault}`);
  }
  return judgement;
}

/** Which numbers are there. */
function* rangeFaults(page: Page, conversation: StoredConversation | undefined): Generator<string> {
  const { numbers, limit, knownLast } = page;
  const step = page.after === undefined ? -1 : 1;
  const [first] = numbers;
  const last = conversation?.lastNumber ?? 0;
  for (const [index, number] of numbers.entries()) {
    const wanted = (first ?? 0) + step * index;
    if (number !== wanted) return yield `${number} where ${wanted} was next`;
  }
  if (page.after !== undefined) {
    if (first !== undefined && first !== page.after + 1) yield `begins with ${first}`;
    const end = page.after + numbers.length;
    if (numbers.length < limit && end < knownLast) yield `ends with ${end}, though ${knownLast} was known`;
    if (!page.hasMore && end < knownLast) yield `has_more is false at ${end}, though ${knownLast} was known`;
    return;
  }
  if (page.before !== undefined) {
    const expected = Math.min(page.before - 1, last);
    if (page.before <= knownLast + 1 && first !== expected && expected > 0) yield `begins with ${first}`;
  } else if ((first ?? 0) < knownLast) yield `begins with ${first}, though ${knownLast} was known`;
  if (first !== undefined && numbers.length < Math.min(limit, first))
    yield `has ${numbers.length} of ${limit}`;
  if (first !== undefined && page.hasMore !== first > numbers.length) yield `has_more is ${page.hasMore}`;
}

/** How each of them stands. */
function* stateFaults(
  page: Page,
  conversation: StoredConversation | undefined,
  changes: Changes,
  posts: Map<StoredEvent, Post>,
): Generator<string> {
  for (const [index, number] of page.numbers.entries()) {
    const event = eventAt(conversation, number);
    if (event === undefined) {
      yield `${number} is not stored`;
      continue;
    }
    const target = event.target === null ? event : eventAt(conversation, event.target);
    const list = (target && changes.get(target)) ?? [];
    const known = list.findLastIndex((change) => timeOf(posts, change, knownAtMs) < page.invokedAtMs);
    const begun = list.findLastIndex((change) => timeOf(posts, change, invokedAtMs) < page.completedAtMs);
    const allowed = Array.from({ length: begun - known + 1 }, (_, offset) =>
      stateAfter(event, list.slice(0, known + offset + 1)),
    );
    if (!allowed.includes(page.digests[index] ?? 0)) yield `${number} is not shown as it then stood`;
  }
}

/** A created message shows its last change; an edit of a message that was deleted shows nothing. */
function stateAfter(event: StoredEvent, changes: StoredEvent[]): number {
  const identity = Bun.hash.xxHash32(`${event.event} ${event.messageId} ${event.number}`);
  const isDeleted = changes.at(-1)?.event === "message.deleted";
  if (event.event === "message.created") {
    if (isDeleted) return stateDigest(identity, "deleted", false);
    return stateDigest(identity, changes.at(-1)?.payload ?? event.payload, changes.length > 0);
  }
  const isHidden = isDeleted && event.event === "message.edited";
  return stateDigest(identity, isHidden ? nothing : event.payload, false);
}

const nothing = Bun.hash.xxHash32("null");

function timeOf(posts: Map<StoredEvent, Post>, change: StoredEvent, time: (post: Post) => number): number {
  const post = posts.get(change);
  return post === undefined ? Number.POSITIVE_INFINITY : time(post);
}

function changesOf(stored: Stored): Changes {
  const changes: Changes = new Map();
  for (const conversation of stored.values()) {
    for (const change of conversation.events) {
      const target = change.target === null ? undefined : eventAt(conversation, change.target);
      if (target === undefined) continue;
      const list = changes.get(target);
      if (list === undefined) changes.set(target, [change]);
      else list.push(change);
    }
  }
  return changes;
}
