// Messages as clients send them: many callers at once, each message up to three times at once and to every node.
import { upTo } from "../support/walk.ts";

/** A message that is to be sent, and what became of each of its copies. */
export interface Message {
  conversationId: string;
  messageId: string;
  senderId: string;
  payload: unknown;
  metadata?: unknown;
  copies: Copy[];
}

/** One of the requests that carried a message; a request that failed is sent again as the same copy. */
export interface Copy {
  /** Of every try. */
  traceIds: string[];
  answer?: Acknowledgement;
  /** What stood in the way of the last try. */
  failure?: string;
}

/** What is used of the answer 202. */
export interface Acknowledgement {
  sequence_number: number;
  created_at: string;
  replay: boolean;
}

/** Who sends, and where. */
export interface LoadOptions {
  messages: Message[];
  callers: number;
  /** Asked for each try: the nodes that there are by then, of which copies take one after the other. */
  urls(): string[];
  /** Of each sender. */
  tokens: Map<string, string>;
  /** A copy that is not acknowledged is sent again until this much time is over; 0: never. */
  retryForMs: number;
}

/** Callers at work. */
export interface Load {
  /** Resolves when so many messages are dealt with, each with all of its copies. */
  reached(count: number): Promise<void>;
  /** Drops the messages that nobody has taken yet. */
  cutShort(): void;
  /** Resolves when all are. */
  done: Promise<void>;
}

const copiesMax = 3;
const hotEvery = 4;
const retryPauseMs = 25;
const answerMsMax = 10_000;

/** Every fourth message goes to the hot conversation, the others to each of the rest in turn. */
export function planMessages(
  hotId: string,
  conversationIds: string[],
  senders: string[],
  count: number,
): Message[] {
  return upTo(count).map((number) => ({
    conversationId: number % hotEvery === 0 ? hotId : pick(conversationIds, number),
    messageId: crypto.randomUUID(),
    senderId: pick(senders, number),
    payload:
      number % 10 === 0
        ? { type: "custom", data: { number, nested: [null, "\u{1f600}\n"] } }
        : { type: "text", text: `message ${number} of ${count}` },
    ...(number % 7 === 0 ? { metadata: { number } } : {}),
    copies: upTo((number % copiesMax) + 1).map(() => ({ traceIds: [] })),
  }));
}

/** Starts the callers: each takes the next message, sends all copies of it at once, and waits for all answers. */
export function startLoad(options: LoadOptions): Load {
  const { messages } = options;
  const milestones = new Map<number, () => void>();
  let taken = 0;
  let finished = 0;

  async function call() {
    for (;;) {
      const message = messages[taken];
      if (message === undefined) return;
      const first = taken;
      taken += 1;
      await Promise.all(message.copies.map((copy, index) => deliver(options, message, copy, first + index)));
      finished += 1;
      milestones.get(finished)?.();
    }
  }

  return {
    reached: (count) =>
      new Promise((resolve) => {
        if (finished >= count) resolve();
        else milestones.set(count, resolve);
      }),
    cutShort: () => void messages.splice(taken),
    done: Promise.all(upTo(options.callers).map(call)).then(() => undefined),
  };
}

async function deliver(options: LoadOptions, message: Message, copy: Copy, turn: number): Promise<void> {
  const endMs = performance.now() + options.retryForMs;
  for (let tries = 0; copy.answer === undefined; tries += 1) {
    const token = options.tokens.get(message.senderId) ?? "";
    await post(pick(options.urls(), turn + tries), token, message, copy);
    if (copy.answer !== undefined || performance.now() >= endMs) return;
    await Bun.sleep(retryPauseMs);
  }
}

async function post(url: string, token: string, message: Message, copy: Copy): Promise<void> {
  const { conversationId, messageId, payload, metadata } = message;
  const traceId = crypto.randomUUID().replaceAll("-", "");
  copy.traceIds.push(traceId);
  try {
    const response = await fetch(`${url}/v1/messages`, {
      method: "POST",
      headers: {
        authorization: `Bearer ${token}`,
        "content-type": "application/json",
        traceparent: `00-${traceId}-00f067aa0ba902b7-01`,
      },
      body: JSON.stringify({ message_id: messageId, conversation_id: conversationId, payload, metadata }),
      signal: AbortSignal.timeout(answerMsMax),
    });
    const text = await response.text();
    if (response.status === 202) copy.answer = JSON.parse(text) as Acknowledgement;
    else copy.failure = `${response.status} ${text}`;
  } catch (error) {
    copy.failure = String(error);
  }
}

function pick<Item>(items: readonly Item[], turn: number): Item {
  return items[turn % items.length] as Item;
}
