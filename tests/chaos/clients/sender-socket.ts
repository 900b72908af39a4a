// A socket that sends: each `send` frame is answered by its `ref`, or its outcome is unknown when the socket breaks.
import type { Try } from "../history.ts";
import { outcomeOf } from "./calls.ts";
import type { Target, World } from "./world.ts";

/** A user's socket for sending. */
export interface SenderSocket {
  readonly user: string;
  /** Whether frames may go out now. */
  isOpen(): boolean;
  underWay(): number;
  send(messageId: string, conversationId: string, payload: unknown): Promise<Try>;
  close(): void;
}

const answerMsMax = 4_000;
const openMsMax = 4_000;
const reopenMs = 300;

/** Opens it, and opens it again, elsewhere if need be, whenever it breaks. */
export function openSenderSocket(world: World, user: string, client: string): SenderSocket {
  const waiting = new Map<number, (outcome: Pick<Try, "outcome" | "code" | "number" | "isReplay">) => void>();
  let current: { socket: WebSocket; target: Target; isReady: boolean } | undefined;
  let isClosed = false;
  let refs = 0;

  function connect(avoid?: string): void {
    if (isClosed) return;
    const target = world.targets.pick(world.random, avoid);
    if (target === undefined) return void setTimeout(connect, reopenMs);
    const url = `${target.url.replace(/^http/, "ws")}/v1/stream?access_token=${world.tokens.get(user)}`;
    const mine = { socket: new WebSocket(url), target, isReady: false };
    current = mine;
    const timer = setTimeout(() => lose(mine), openMsMax);
    mine.socket.addEventListener("message", ({ data }) => {
      if (current !== mine) return;
      clearTimeout(timer);
      take(JSON.parse(String(data)), mine);
    });
    mine.socket.addEventListener("close", () => lose(mine));
    mine.socket.addEventListener("error", () => lose(mine));
  }

  function lose(mine: NonNullable<typeof current>): void {
    if (current !== mine) return;
    current = undefined;
    if (!mine.isReady) world.targets.failed(mine.target.name);
    mine.socket.close();
    const broken = [...waiting.values()];
    waiting.clear();
    for (const resolve of broken) resolve({ outcome: "unknown", code: "socket_closed" });
    setTimeout(() => connect(mine.target.name), reopenMs);
  }

  function take(frame: any, mine: NonNullable<typeof current>): void {
    if (frame.type === "hello") mine.isReady = true;
    const resolve = waiting.get(frame.ref);
    if (resolve === undefined) return;
    waiting.delete(frame.ref);
    if (frame.type === "ack") {
      resolve({ outcome: "ok", number: frame.sequence_number, isReplay: frame.replay });
    } else resolve({ outcome: outcomeOf(frame.status), code: frame.code });
  }

  async function send(messageId: string, conversationId: string, payload: unknown): Promise<Try> {
    const invokedAtMs = performance.now();
    const mine = current;
    const instance = mine?.target.name ?? "none";
    refs += 1;
    const ref = refs;
    const answered = Promise.withResolvers<Pick<Try, "outcome" | "code">>();
    waiting.set(ref, answered.resolve);
    // An instance that hangs would keep the socket, and everything that is sent on it, for ever.
    const timer = setTimeout(() => {
      waiting.delete(ref);
      answered.resolve({ outcome: "unknown", code: "timeout" });
      world.targets.failed(instance);
      if (mine !== undefined) lose(mine);
    }, answerMsMax);
    const frame = { type: "send", ref, message_id: messageId, conversation_id: conversationId, payload };
    mine?.socket.send(JSON.stringify(frame));
    const outcome = await answered.promise;
    clearTimeout(timer);
    return { client, instance, invokedAtMs, completedAtMs: performance.now(), ...outcome };
  }

  connect();
  return {
    user,
    isOpen: () => current?.isReady === true && current.socket.readyState === WebSocket.OPEN,
    underWay: () => waiting.size,
    send,
    close() {
      isClosed = true;
      current?.socket.close();
    },
  };
}
