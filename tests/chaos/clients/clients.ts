// Everybody who writes, and asks for history: operations of every kind at a rate, chosen by the seed, each noted in
// the history. A call that is under way too long, or an instance that is away, slows nobody but who called it.
import { type Post, type Receipt, type ShownItem, saidDigest, shownDigest } from "../history.ts";
import { call } from "./calls.ts";
import {
  composeForbidden,
  composeMessage,
  type Letter,
  pickConversation,
  textPayload,
  uuidOf,
} from "./compose.ts";
import { Deliveries, readAnswer } from "./delivery.ts";
import { Guests } from "./guests.ts";
import { openSenderSocket } from "./sender-socket.ts";
import type { World } from "./world.ts";

/** Clients at work. */
export interface Clients {
  deliveries: Deliveries;
  guests: Guests;
  /** Calls that are no messages: edits, deletes, receipts, pages, moves of members. */
  otherCalls(): number;
  /** Nothing new is begun; what is unknown goes on being sent again. */
  stopNew(): void;
  /** Resolves once every outcome is known, or left unknown on purpose. */
  settled(): boolean;
  close(): void;
}

const tickMs = 20;
const sendingUsers = 8;
const rowsUnderWayMax = 500;
const callsUnderWayMax = 64;
const recentMax = 400;
const batchRowsMax = 50;
const pageLimits = [1, 10, 50, 100, 500];

/** By how often each is done. */
const ways: [
  number,
  "socket" | "alone" | "batch" | "change" | "page" | "receipt" | "forbidden" | "repeat" | "race",
][] = [
  [0.3, "socket"],
  [0.2, "alone"],
  [0.29, "batch"],
  [0.06, "change"],
  [0.05, "page"],
  [0.04, "receipt"],
  [0.03, "forbidden"],
  [0.02, "repeat"],
  [0.01, "race"],
];

/** What clients do. */
export interface Traffic {
  /** Messages a second when all is well. */
  rate: number;
  /** `load`: mostly messages, in large batches; `everything`: each operation as often as the others. */
  mix: "load" | "everything";
}

/** Starts them. */
export function startClients(world: World, { rate, mix }: Traffic): Clients {
  const { random, targets, history } = world;
  const sockets = world.users
    .slice(0, sendingUsers)
    .map((user) => openSenderSocket(world, user, `socket of ${user}`));
  const recent: Letter[] = [];
  const deliveries = new Deliveries(world, sockets, (letter) => {
    if (recent.length < recentMax) recent.push(letter);
    else recent[random.between(0, recentMax - 1)] = letter;
  });
  const guests = new Guests(world, deliveries);
  let allowance = 0;
  let lastAtMs = performance.now();
  let isOver = false;
  let calls = 0;
  let othersUnderWay = 0;

  const timer = setInterval(() => {
    const now = performance.now();
    deliveries.sendDue(isOver);
    allowance = Math.min(rate / 4, allowance + ((now - lastAtMs) / 1000) * rate);
    lastAtMs = now;
    while (!isOver && allowance > 0 && deliveries.underWay < rowsUnderWayMax && !deliveries.isFull) {
      allowance -= operate();
      if (othersUnderWay > callsUnderWayMax) break;
    }
  }, tickMs);

  /** Begins one operation; answers how many messages it is. */
  function operate(): number {
    const target = targets.pick(random);
    if (target === undefined) {
      allowance = 0;
      return 1;
    }
    const conversation = pickConversation(world);
    const user = random.pick(conversation.memberIds);
    switch (mix === "load" ? pickWay(random.next()) : random.pick(ways)[1]) {
      case "socket":
        sendOverSocket(begun(composeMessage(world, conversation, socketUser(conversation.memberIds, user))));
        return 1;
      case "alone":
        void deliveries.postAlone(begun(composeMessage(world, conversation, user)), target);
        return 1;
      case "race": {
        const letter = begun(composeMessage(world, conversation, user));
        for (const one of targets.all.slice(0, 2)) void deliveries.postAlone(letter, one);
        return 2;
      }
      case "batch": {
        const letters = composeBatch(user);
        for (const { post } of letters) history.posts.push(post);
        void deliveries.postBatch(letters, target);
        return letters.length;
      }
      case "repeat": {
        if (recent.length > 0) void deliveries.postAlone(random.pick(recent), target);
        return 1;
      }
      case "forbidden": {
        const letter = begun(composeForbidden(world, recent.length > 0 ? random.pick(recent) : undefined));
        void deliveries.postAlone(letter, target);
        return 1;
      }
      case "change":
        if (recent.length > 0) void other(() => changeMessage(random.pick(recent)));
        return 1;
      case "page":
        void other(() => readPage(conversation.id, user));
        return 1;
      case "receipt":
        void other(() => moveCursors(conversation.id, user));
        return 1;
    }
  }

  function begun(letter: Letter): Letter {
    history.posts.push(letter.post);
    return letter;
  }

  function sendOverSocket(letter: Letter): void {
    const target = targets.pick(random) ?? targets.all[0];
    if (!deliveries.postOverSocket(letter) && target !== undefined) void deliveries.postAlone(letter, target);
  }

  function socketUser(members: readonly string[], otherwise: string): string {
    const able = sockets.filter(({ user }) => members.includes(user));
    return able.length > 0 ? random.pick(able).user : otherwise;
  }

  function composeBatch(user: string): Letter[] {
    const mine = world.conversations.filter(({ memberIds }) => memberIds.includes(user));
    const places = Array.from({ length: random.between(1, 4) }, () => random.pick(mine));
    const rows = random.between(1, mix === "load" ? batchRowsMax : 5);
    return Array.from({ length: rows }, () => composeMessage(world, random.pick(places), user));
  }

  async function other(work: () => Promise<void>): Promise<void> {
    calls += 1;
    othersUnderWay += 1;
    await work();
    othersUnderWay -= 1;
  }

  /** Edits or deletes; its answer is asked for again, with the same key, until it is known. */
  async function changeMessage(letter: Letter): Promise<void> {
    const target = letter.post.tries.find(({ number }) => number !== undefined)?.number;
    if (target === undefined) return;
    const isDelete = random.next() < 0.25;
    const isForeign = random.next() < 0.1;
    const { conversationId, senderId, key: messageId } = letter.post;
    const strangers = world.users.filter(
      (user) => user !== senderId && user !== world.ownerOf.get(conversationId),
    );
    const user = isForeign ? random.pick(strangers) : senderId;
    const payload = isDelete ? undefined : textPayload(random);
    const kind = isDelete ? "message.deleted" : "message.edited";
    const key = uuidOf(random);
    const said = saidDigest({
      event: kind,
      message_id: messageId,
      sender_id: user,
      payload,
      target_sequence_number: target,
    });
    const post: Post = { kind, conversationId, senderId: user, key, said, target, tries: [] };
    if (isForeign) post.forbidden = "not its sender";
    history.posts.push(post);
    const what = {
      client: `changes of ${user}`,
      user,
      method: isDelete ? "DELETE" : "PATCH",
      path: `/v1/conversations/${conversationId}/messages/${target}`,
      headers: { "idempotency-key": key },
      ...(isDelete ? {} : { body: { payload } }),
    };
    for (let tries = 0; tries < 40; tries += 1) {
      const at = targets.pick(random);
      if (at !== undefined) {
        const { tried, body } = await call(world, at, what);
        post.tries.push(tried.outcome === "ok" ? readAnswer(tried, body) : tried);
        if (tried.outcome !== "unknown") return;
      }
      await Bun.sleep(random.between(200, 1_000));
    }
  }

  async function readPage(conversationId: string, user: string): Promise<void> {
    const at = targets.pick(random);
    if (at === undefined) return;
    const knownLast = world.knownLast.get(conversationId) ?? 0;
    const limit = random.pick(pageLimits);
    const from = random.between(0, knownLast);
    const way = random.next();
    const range =
      way < 0.5
        ? {}
        : way < 0.8
          ? { after: Math.max(0, knownLast - random.between(0, 200)) }
          : { before: from + 1 };
    const query = new URLSearchParams({ limit: String(limit) });
    for (const [name, value] of Object.entries(range)) query.set(name, String(value));
    const path = `/v1/conversations/${conversationId}/messages?${query.toString()}`;
    const { tried, body } = await call(world, at, {
      client: `history of ${user}`,
      user,
      method: "GET",
      path,
    });
    if (tried.outcome !== "ok") return;
    const items: ShownItem[] = body.items;
    const { invokedAtMs, completedAtMs, instance } = tried;
    history.pages.push({
      ...range,
      conversationId,
      userId: user,
      instance,
      invokedAtMs,
      completedAtMs,
      limit,
      knownLast,
      numbers: items.map((item) => item.sequence_number),
      digests: items.map(shownDigest),
      hasMore: body.has_more,
    });
  }

  async function moveCursors(conversationId: string, user: string): Promise<void> {
    const at = targets.pick(random);
    if (at === undefined) return;
    const last = world.knownLast.get(conversationId) ?? 0;
    const read = random.between(0, last);
    const asked = { delivered: random.between(0, last), read };
    const path = `/v1/conversations/${conversationId}/receipts`;
    const { tried, body } = await call(world, at, {
      client: `receipts of ${user}`,
      user,
      method: "POST",
      path,
      body: asked,
    });
    if (tried.outcome !== "ok") return;
    const { instance, invokedAtMs, completedAtMs } = tried;
    const receipt: Receipt = {
      conversationId,
      userId: user,
      instance,
      invokedAtMs,
      completedAtMs,
      asked,
      answered: body,
    };
    history.receipts.push(receipt);
  }

  return {
    deliveries,
    guests,
    otherCalls: () => calls,
    stopNew() {
      isOver = true;
      guests.stop();
    },
    settled: () => isOver && deliveries.unsettled === 0 && othersUnderWay === 0 && guests.isIdle(),
    close() {
      clearInterval(timer);
      for (const socket of sockets) socket.close();
    },
  };
}

function pickWay(value: number): (typeof ways)[number][1] {
  let left = value;
  for (const [share, way] of ways) {
    left -= share;
    if (left < 0) return way;
  }
  return "alone";
}
