// Sends letters by each of the three ways in, notes every try, and sends again what is unknown until it is known.
import { acknowledged, type Try } from "../history.ts";
import { call } from "./calls.ts";
import type { Letter } from "./compose.ts";
import type { SenderSocket } from "./sender-socket.ts";
import { noteNumber, type Target, type World } from "./world.ts";

/** Codes of 429. */
const overloaded = new Set(["too_many_frames", "rate_limited"]);
const retryPauseMs = [150, 1_200] as const;
/** So many of what is unknown are left alone, as clients do that are closed. */
const forgottenShare = 0.04;
/** Rows that were sent and not answered, or wait for their next try: beyond it nothing new is sent. */
const unsettledMax = 4_000;

/** What is counted of all deliveries. */
export interface DeliveryCounts {
  acknowledged: number;
  refused: number;
  unknown: number;
  again: number;
  forgotten: number;
}

/** Letters on their way. */
export class Deliveries {
  readonly counts: DeliveryCounts = { acknowledged: 0, refused: 0, unknown: 0, again: 0, forgotten: 0 };
  /** Rows that were sent and are not answered. */
  underWay = 0;
  readonly #world: World;
  readonly #sockets: SenderSocket[];
  readonly #due: { letter: Letter; atMs: number; lastInstance: string }[] = [];
  readonly #onStored: (letter: Letter) => void;

  constructor(world: World, sockets: SenderSocket[], onStored: (letter: Letter) => void) {
    this.#world = world;
    this.#sockets = sockets;
    this.#onStored = onStored;
  }

  /** What is still to become known. */
  get unsettled(): number {
    return this.underWay + this.#due.length;
  }

  get isFull(): boolean {
    return this.unsettled > unsettledMax;
  }

  /** As one request. */
  async postAlone(letter: Letter, target: Target): Promise<void> {
    const { body, post } = letter;
    const client = `http of ${post.senderId}`;
    const what = { client, user: post.senderId, method: "POST", path: "/v1/messages", body };
    await this.#count([letter], async () => {
      const { tried, body: answer } = await call(this.#world, target, what);
      if (tried.outcome === "ok") readAnswer(tried, answer);
      return [tried];
    });
  }

  /** All of one sender. */
  async postBatch(letters: Letter[], target: Target): Promise<void> {
    const user = letters[0]?.post.senderId ?? "";
    const body = { messages: letters.map((letter) => letter.body) };
    const what = { client: `batch of ${user}`, user, method: "POST", path: "/v1/messages/batch", body };
    await this.#count(letters, async () => {
      const { tried, body: answer } = await call(this.#world, target, what);
      return letters.map((_, index) => rowTry(tried, answer?.results?.[index]));
    });
  }

  /** Metadata does not go this way. Answers false when no socket of this sender is free. */
  postOverSocket(letter: Letter): Promise<void> | false {
    const { post, body } = letter;
    const socket = this.#sockets.find(
      (one) => one.user === post.senderId && one.isOpen() && one.underWay() < 64,
    );
    if (socket === undefined || body.metadata !== undefined) return false;
    return this.#count([letter], async () => [
      await socket.send(body.message_id, body.conversation_id, body.payload),
    ]);
  }

  /** What was unknown and is due goes again; `isLast`: without waiting for its time. */
  sendDue(isLast = false): void {
    const { random, targets } = this.#world;
    const now = performance.now();
    const due = this.#due.filter(({ atMs }) => isLast || atMs <= now).slice(0, 200);
    for (const letters of Map.groupBy(due, ({ letter }) => letter.post.senderId).values()) {
      for (let taken = 0; taken < letters.length; taken += 50) {
        const part = letters.slice(taken, taken + 50);
        const target = targets.pick(random, random.next() < 0.7 ? part[0]?.lastInstance : undefined);
        if (target === undefined) return;
        for (const one of part) this.#due.splice(this.#due.indexOf(one), 1);
        this.counts.again += part.length;
        const [only] = part;
        if (part.length === 1 && only !== undefined) {
          if (random.next() < 0.5 || !this.postOverSocket(only.letter))
            void this.postAlone(only.letter, target);
        } else
          void this.postBatch(
            part.map(({ letter }) => letter),
            target,
          );
      }
    }
  }

  async #count(letters: Letter[], send: () => Promise<Try[]>): Promise<void> {
    this.underWay += letters.length;
    const tries = await send();
    this.underWay -= letters.length;
    for (const [index, letter] of letters.entries()) this.#note(letter, tries[index] as Try);
  }

  #note(letter: Letter, tried: Try): void {
    const { post } = letter;
    const wasKnown = acknowledged(post) !== undefined;
    const wasUnknown = post.tries.some(({ outcome }) => outcome === "unknown");
    post.tries.push(tried);
    switch (tried.outcome) {
      case "ok":
        if (tried.number !== undefined) noteNumber(this.#world, post.conversationId, tried.number);
        if (wasKnown) return;
        this.counts.acknowledged += 1;
        if (post.forbidden === undefined) this.#onStored(letter);
        return;
      case "failed":
        this.counts.refused += 1;
        // Overload: nothing was stored, and the client may come again.
        if (overloaded.has(tried.code ?? "")) this.#again(letter, tried);
        return;
      case "unknown":
        this.counts.unknown += 1;
        if (wasKnown || post.forbidden !== undefined) return;
        if (!wasUnknown && this.#world.random.next() < forgottenShare) this.counts.forgotten += 1;
        else this.#again(letter, tried);
        return;
      default:
        tried.outcome satisfies never;
    }
  }

  #again(letter: Letter, { instance }: Try): void {
    const atMs = performance.now() + this.#world.random.between(...retryPauseMs);
    this.#due.push({ letter, atMs, lastInstance: instance });
  }
}

/** The try of one row of a batch. */
function rowTry(whole: Try, row: any): Try {
  if (whole.outcome !== "ok") return { ...whole };
  const { status = 0, code } = row ?? {};
  if (status === 202) return readAnswer({ ...whole }, row);
  return { ...whole, outcome: status >= 400 && status < 500 ? "failed" : "unknown", code: String(code) };
}

/** Into the try. */
export function readAnswer(tried: Try, answer: any): Try {
  tried.number = answer.sequence_number;
  tried.createdAtMs = Date.parse(answer.created_at);
  tried.isReplay = answer.replay;
  return tried;
}
