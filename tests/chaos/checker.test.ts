// The checker over histories made by hand: each judge is silent about what is right, and names what is wrong.
import { expect, test } from "bun:test";
import { conversationKey, partitionOf } from "../../src/platform/murmur2.ts";
import type { Judgement } from "./checker/judgement.ts";
import { judgeNumbers, judgePosts } from "./checker/ledger.ts";
import { judgeMembers } from "./checker/members.ts";
import { judgeOrder, judgeReceipts } from "./checker/order.ts";
import { judgePages } from "./checker/pages.ts";
import { type EventColumns, type Stored, storedEvent } from "./checker/stored.ts";
import { judgeStreams } from "./checker/streams.ts";
import { TopicCheck, type TopicRecord } from "./checker/topics.ts";
import {
  emptyHistory,
  type History,
  type Page,
  type Post,
  saidDigest,
  shownDigest,
  type Track,
  type Try,
} from "./history.ts";

const id = "11111111-1111-4111-a111-111111111111";
const createdAt = new Date("2026-01-01T00:00:00.000Z");
const partitions = 4;

test("what was acknowledged and is stored as it was is green everywhere", () => {
  const { history, stored } = scene(3);
  history.tracks.push(track([1, 2, 3], stored));
  history.pages.push(page([3, 2, 1], stored));
  const { judgements, placed } = judgePosts(history, stored);
  const all = [
    ...judgements,
    judgeNumbers(stored),
    judgeOrder(history, placed),
    judgePages(history, stored, placed),
    judgeMembers(history, stored),
    judgeStreams(history.tracks, stored),
  ];
  expect(violationsOf(all)).toEqual([]);
  expect(
    all.every(({ checked, guarantee }) => checked > 0 || guarantee === "refusals" || guarantee === "retries"),
  ).toBe(true);
});

test("finds numbers that are missing or there twice, and a last number that is not the last", () => {
  const numbersFound = (numbers: number[], last: number) => {
    const events = numbers.map((number) => storedEvent(row(number)));
    return judgeNumbers(new Map([[id, { id, lastNumber: last, events }]])).shown;
  };
  expect(numbersFound([1, 3], 3)).toEqual([`${id}: 2 to 2 are missing`]);
  expect(numbersFound([1, 2, 2], 2)).toEqual([`${id}: 2 is there twice`]);
  expect(numbersFound([1, 2], 3)).toEqual([`${id}: last_sequence_number is 3, the last event 2`]);
});

test("finds an acknowledged message that is missing, or stored with another number, time or content", () => {
  const found = (change: (history: History, stored: Stored) => void) => {
    const { history, stored } = scene(2);
    change(history, stored);
    return violationsOf(judgePosts(history, stored).judgements);
  };
  expect(found((_, stored) => stored.get(id)?.events.pop())).toEqual(["acknowledged"]);
  expect(found(({ posts }) => (tryOf(posts[1]).number = 1))).toEqual(["acknowledged"]);
  expect(found(({ posts }) => (tryOf(posts[1]).createdAtMs = 5))).toEqual(["acknowledged"]);
  expect(found(({ posts }) => (post(posts, 1).said += 1))).toEqual(["acknowledged"]);
});

test("finds a retry with two numbers, and one that is new twice", () => {
  const found = (changes: Partial<Try>) => {
    const { history, stored } = scene(2);
    const { tries } = post(history.posts, 0);
    tries.push({ ...tryOf(history.posts[0]), isReplay: true, ...changes });
    return violationsOf(judgePosts(history, stored).judgements);
  };
  expect(found({})).toEqual([]);
  expect(found({ number: 2 })).toEqual(["retries"]);
  expect(found({ createdAtMs: 1 })).toEqual(["retries"]);
  expect(found({ isReplay: false })).toEqual(["retries"]);
});

test("permits what is unknown to be stored or not, and nothing that was refused or sent by nobody", () => {
  const found = (outcome: Try["outcome"], isStored: boolean, forbidden?: NonNullable<Post["forbidden"]>) => {
    const { history, stored } = scene(2);
    const last = post(history.posts, 1);
    last.tries = [{ ...tryOf(last), outcome }];
    if (forbidden !== undefined) last.forbidden = forbidden;
    if (!isStored) stored.get(id)?.events.pop();
    return violationsOf(judgePosts(history, stored).judgements);
  };
  expect(found("unknown", true)).toEqual([]);
  expect(found("unknown", false)).toEqual([]);
  expect(found("failed", false)).toEqual([]);
  expect(found("failed", true)).toEqual(["refusals"]);
  expect(found("ok", false, "malformed")).toEqual(["refusals"]);
  expect(found("unknown", true, "not a member")).toEqual(["refusals"]);
  const { history, stored } = scene(2);
  history.posts.pop();
  expect(violationsOf(judgePosts(history, stored).judgements)).toEqual(["refusals"]);
});

test("finds a number that goes against real time, and an event that was seen before it was sent", () => {
  const { history, stored } = scene(2);
  const [first, second] = history.posts.map((one) => tryOf(one));
  Object.assign(first as Try, { invokedAtMs: 10, completedAtMs: 20 });
  Object.assign(second as Try, { invokedAtMs: 1, completedAtMs: 9 });
  const { placed } = judgePosts(history, stored);
  expect(judgeOrder(history, placed).violations).toBe(1);
  Object.assign(second as Try, { completedAtMs: 11 });
  expect(judgeOrder(history, placed).violations).toBe(0);
  history.tracks.push({ ...track([1, 2], stored), atMs: [5, 5] });
  expect(judgeOrder(history, placed).shown).toHaveLength(1);
});

test("finds gaps, repeats, disorder and other content in what a reader got", () => {
  const { stored } = scene(4);
  const found = (numbers: number[], changes: Partial<Track> = {}) =>
    judgeStreams([{ ...track(numbers, stored), ...changes }], stored).violations;
  expect(found([1, 2, 3, 4])).toBe(0);
  expect(found([3, 4], { after: 2 })).toBe(0);
  // Whether it came to its end is waited for elsewhere.
  expect(found([1, 2])).toBe(0);
  expect(found([1, 3, 4])).toBe(1);
  expect(found([2, 3], { after: 2 })).toBe(1);
  expect(found([1, 2, 2, 3])).toBe(1);
  expect(found([1, 3, 2, 4])).toBe(2);
  expect(found([1, 9])).toBe(1);
  expect(found([1, 2], { digests: [1, 2] })).toBe(2);
});

test("finds a page that is old, has a hole, or shows a message as it no longer stood", () => {
  const found = (numbers: number[], changes: Partial<Page> = {}) => {
    const { history, stored } = scene(4);
    history.pages.push({ ...page(numbers, stored), ...changes });
    return judgePages(history, stored, judgePosts(history, stored).placed).violations;
  };
  expect(found([4, 3, 2, 1])).toBe(0);
  expect(found([3, 2, 1], { knownLast: 3 })).toBe(0);
  expect(found([3, 2, 1], { knownLast: 4 })).toBe(1);
  expect(found([4, 2, 1])).toBe(1);
  expect(found([4, 3], { limit: 2, hasMore: true })).toBe(0);
  expect(found([4, 3], { limit: 2, hasMore: false })).toBe(1);
  expect(found([2, 3, 4], { after: 1 })).toBe(0);
  expect(found([2, 3], { after: 1, knownLast: 4 })).toBe(1);
  expect(found([4, 3, 2, 1], { digests: [1, 2, 3, 4] })).toBe(1);
});

test("shows an edit from its acknowledgement on, and not before it was sent", () => {
  const { history, stored } = scene(1);
  const payload = { type: "text", text: "edited" };
  const edit = { ...row(2), event: "message.edited", message_id: key(1), payload, target_sequence_number: 1 };
  stored.get(id)?.events.push(storedEvent(edit));
  const said = saidDigest(edit);
  const tries = [{ ...tryOf(history.posts[0]), number: 2, invokedAtMs: 10, completedAtMs: 20 }];
  history.posts.push({
    kind: "message.edited",
    conversationId: id,
    senderId: "ann",
    key: key(2),
    said,
    target: 1,
    tries,
  });
  const before = shownDigest(shown(1));
  const after = shownDigest({ ...shown(1), payload, edited_at: createdAt.toISOString() });
  const found = (digest: number, invokedAtMs: number, completedAtMs: number) => {
    history.pages = [{ ...page([1], stored), digests: [digest], invokedAtMs, completedAtMs, knownLast: 1 }];
    return judgePages(history, stored, judgePosts(history, stored).placed).violations;
  };
  expect([found(before, 1, 5), found(after, 1, 5)]).toEqual([0, 1]);
  expect([found(before, 11, 15), found(after, 11, 15)]).toEqual([0, 0]);
  expect([found(before, 21, 25), found(after, 21, 25)]).toEqual([1, 0]);
});

test("finds cursors that fall, or were answered lower than asked for", () => {
  const receipt = (atMs: number, read: number, asked = read) => ({
    conversationId: id,
    userId: "ann",
    instance: "one",
    invokedAtMs: atMs,
    completedAtMs: atMs + 1,
    asked: { delivered: asked, read: asked },
    answered: { delivered: read, read },
  });
  const found = (receipts: ReturnType<typeof receipt>[], final: number) =>
    judgeReceipts(receipts, new Map([[`${id} ann`, { delivered: final, read: final }]])).violations;
  expect(found([receipt(1, 3), receipt(5, 4)], 4)).toBe(0);
  expect(found([receipt(1, 3), receipt(5, 2)], 3)).toBe(1);
  expect(found([receipt(1, 3, 4)], 3)).toBe(1);
  expect(found([receipt(1, 3)], 2)).toBe(1);
});

test("finds what a removed member sends, or gets", () => {
  const { history, stored } = scene(1);
  const about = (number: number, event: string) =>
    storedEvent({ ...row(number), event, payload: { user_id: "guest" }, target_sequence_number: null });
  const events = stored.get(id)?.events ?? [];
  events.push(
    about(2, "member.added"),
    storedEvent({ ...row(3), sender_id: "guest" }),
    about(4, "member.removed"),
  );
  const move = (kind: "member.added" | "member.removed", atMs: number, number?: number) =>
    history.moves.push({
      kind,
      conversationId: id,
      userId: "guest",
      tries: [
        { ...tryOf(history.posts[0]), invokedAtMs: atMs, completedAtMs: atMs + 1, ...(number && { number }) },
      ],
    });
  move("member.added", 10, 2);
  move("member.removed", 20);
  const found = () => judgeMembers(history, stored).violations;
  expect(found()).toBe(0);
  events.push(storedEvent({ ...row(5), sender_id: "guest" }));
  expect(found()).toBe(1);
  events[4] = storedEvent(row(5));
  history.tracks.push({ ...track([1, 2, 3, 4], stored), userId: "guest", atMs: [15, 15, 15, 25] });
  expect(found()).toBe(0);
  history.tracks.push({ ...track([5], stored), userId: "guest", atMs: [26] });
  expect(found()).toBe(1);
  // Once the guest is back, what came meanwhile is history.
  events.push(about(6, "member.added"));
  move("member.added", 25.5, 6);
  expect(found()).toBe(0);
  // And it may be back by an earlier try, whose instance stood still meanwhile.
  history.moves.pop();
  expect(found()).toBeGreaterThan(0);
  history.moves[0]?.tries.push({ ...tryOf(history.posts[0]), invokedAtMs: 9, outcome: "unknown" });
  expect(found()).toBe(0);
});

test("finds in a topic what is missing, out of order, changed or on another partition, and permits repeats", () => {
  const { stored } = scene(3);
  const home = partitionOf(conversationKey(id), partitions);
  const found = (numbers: number[], partition = home, change: Partial<TopicRecord> = {}) => {
    const check = new TopicCheck("topic", stored, () => true, partitions);
    for (const number of numbers) check.take(partition, { ...record(number), ...change });
    return check.end().violations;
  };
  expect(found([1, 2, 3])).toBe(0);
  expect(found([1, 2, 1, 2, 3, 1])).toBe(0);
  expect(found([1, 2])).toBe(1);
  expect(found([1, 3, 2])).toBe(1);
  expect(found([1, 2, 3, 4])).toBe(1);
  expect(found([1, 2, 3], (home + 1) % partitions)).toBe(3);
  expect(
    found([1, 2, 3], home, { value: JSON.stringify({ ...shown(1), payload: { type: "text", text: "x" } }) }),
  ).toBe(3);
  expect(found([1], home, { key: "conversation:other" })).toBe(2);
});

/** A conversation of ann's with n messages, sent one after the other, each acknowledged. */
function scene(count: number): { history: History; stored: Stored } {
  const numbers = Array.from({ length: count }, (_, index) => index + 1);
  const history = emptyHistory();
  history.conversations.push({ id, channels: [], memberIds: ["ann"] });
  history.posts = numbers.map((number) => ({
    kind: "message.created",
    conversationId: id,
    senderId: "ann",
    key: key(number),
    said: saidDigest(shown(number)),
    tries: [
      {
        client: "test",
        instance: "one",
        invokedAtMs: number,
        completedAtMs: number + 0.5,
        outcome: "ok",
        number,
        createdAtMs: createdAt.getTime(),
        isReplay: false,
      },
    ],
  }));
  const events = numbers.map((number) => storedEvent(row(number)));
  return { history, stored: new Map([[id, { id, lastNumber: count, events }]]) };
}

function key(number: number): string {
  return `22222222-2222-4222-a222-${String(number).padStart(12, "0")}`;
}

function row(number: number): EventColumns {
  return {
    sequence_number: number,
    event: "message.created",
    message_id: key(number),
    idempotency_key: key(number),
    sender_id: "ann",
    payload: { type: "text", text: `${number}` },
    metadata: null,
    target_sequence_number: null,
    edited_by: null,
    deleted_by: null,
    created_at: createdAt,
  };
}

/** The event as it is shown. */
function shown(number: number) {
  const { sequence_number, event, message_id, sender_id, payload } = row(number);
  return {
    event,
    conversation_id: id,
    sequence_number,
    message_id,
    sender_id,
    payload,
    created_at: createdAt.toISOString(),
  };
}

function track(numbers: number[], stored: Stored): Track {
  const events = stored.get(id)?.events ?? [];
  return {
    reader: "a reader",
    userId: "ann",
    conversationId: id,
    after: 0,
    numbers,
    faults: [],
    digests: numbers.map((number) => events.find((event) => event.number === number)?.digest ?? 0),
    atMs: numbers.map(() => 1_000),
    instance: "one",
    isOver: false,
  };
}

function page(numbers: number[], stored: Stored): Page {
  return {
    conversationId: id,
    userId: "ann",
    instance: "one",
    invokedAtMs: 1_000,
    completedAtMs: 1_001,
    limit: 50,
    knownLast: stored.get(id)?.lastNumber ?? 0,
    numbers,
    digests: numbers.map((number) => shownDigest(shown(number))),
    hasMore: false,
  };
}

function record(number: number): TopicRecord {
  const event = shown(number);
  return {
    key: conversationKey(id),
    value: JSON.stringify(event),
    headers: {
      ce_specversion: "1.0",
      ce_id: `${id}:${number}`,
      ce_type: `chat4all.${event.event}.v1`,
      ce_subject: id,
      ce_time: event.created_at,
      message_id: event.message_id,
      sequence_number: String(number),
    },
  };
}

function post(posts: Post[], index: number): Post {
  return posts[index] as Post;
}

function tryOf(one: Post | undefined): Try {
  return one?.tries[0] as Try;
}

function violationsOf(judgements: Judgement[]): string[] {
  return judgements.filter(({ violations }) => violations > 0).map(({ guarantee }) => guarantee);
}
