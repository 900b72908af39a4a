/**
 * One message from one demo user to another, through the running system and by its public interface only, with the
 * moment at which each state was seen.
 */

import { apiOf, type Caller } from "../../src/cli/api.ts";
import { OperatingError } from "../../src/model/errors.ts";
import type { Connection } from "./connection.ts";
import { emphasise } from "./terminal.ts";

/**
 * Sends the message and prints its walk.
 * @throws {OperatingError} a CallFailure when a call is refused; `demo_failed` when the message gets stuck for 30 s.
 */
export async function showWalk(connection: Connection, signal: AbortSignal): Promise<void> {
  const limit = AbortSignal.any([signal, stuckAfter(30_000)]);
  const api = apiOf(connection);
  const [ada, grace] = [api.asUser("ada"), api.asUser("grace")];
  const members = ["ada", "grace"];
  const conversation = await ada.call<{ id: string }>("POST", "/v1/conversations", {
    kind: "direct",
    members,
  });
  const message = {
    message_id: crypto.randomUUID(),
    conversation_id: conversation.id,
    payload: { type: "text", text: "Hello, Grace!" },
  };

  const socket = await subscribe(connection.url, await grace.accessToken(), conversation.id, limit);
  try {
    const sentAt = performance.now();
    const elapsedMs = () => performance.now() - sentAt;
    const post = async () => {
      const { sequence_number } = await ada.call<{ sequence_number: number }>(
        "POST",
        "/v1/messages",
        message,
      );
      const storedMs = elapsedMs();
      const path = `/v1/conversations/${conversation.id}/messages/${sequence_number}`;
      return { sequence_number, storedMs, ...(await watchStates(ada, path, elapsedMs, limit)) };
    };
    const [walk, seenMs] = await Promise.all([post(), socket.received(message.message_id).then(elapsedMs)]);
    console.log(`\nada writes to grace: message ${walk.sequence_number} of conversation ${conversation.id}`);
    printStop("persisted, enqueued", walk.storedMs, "one commit in Postgres, then 202");
    printStop("on a socket", seenMs, "grace has it");
    printStop("published", walk.published.ms, `Kafka has acknowledged it${within(walk.published)}`);
    printStop("delivered", walk.delivered.ms, `routed to chat4all.events${within(walk.delivered)}`);
    console.log(emphasise("  The first message after a start opens connections on its way.", "dim"));
  } finally {
    socket.close();
  }
}

/** When a state was first seen, and how long before that it was last looked for. */
interface Sighting {
  readonly ms: number;
  readonly unseenMs: number;
}

/** Asks for the message's state until it is delivered; a state that was passed between two looks counts as seen with the next. */
async function watchStates(
  client: Caller,
  path: string,
  elapsedMs: () => number,
  limit: AbortSignal,
): Promise<{ published: Sighting; delivered: Sighting }> {
  let published: Sighting | undefined;
  let lookedMs = elapsedMs();
  // Ever slower, so that a slow walk does not use up the rate limit.
  for (let pauseMs = 1; ; pauseMs *= 1.15) {
    const { state } = await client.call<{ state: string }>("GET", path);
    const sighting = { ms: elapsedMs(), unseenMs: elapsedMs() - lookedMs };
    if (state === "failed") throw demoFailed("its message was parked as a dead letter");
    if (state !== "enqueued") published ??= sighting;
    if (state === "delivered") return { published: published ?? sighting, delivered: sighting };
    limit.throwIfAborted();
    lookedMs = elapsedMs();
    await Bun.sleep(pauseMs);
  }
}

/** A socket that gets what is new in the conversation. */
async function subscribe(url: string, accessToken: string, conversationId: string, limit: AbortSignal) {
  const socket = new WebSocket(`${url.replace("http", "ws")}/v1/stream?access_token=${accessToken}`);
  /** Resolves with the first frame that `isIt` says yes to. */
  const frame = (isIt: (frame: Record<string, unknown>) => boolean) =>
    new Promise<void>((resolve, reject) => {
      socket.addEventListener("message", ({ data }) => isIt(JSON.parse(String(data))) && resolve());
      socket.addEventListener("close", () => reject(demoFailed("its socket was closed")));
      limit.addEventListener("abort", () => reject(limit.reason));
    });
  await frame(({ type }) => type === "hello");
  const subscribed = frame(({ type }) => type === "subscribed");
  socket.send(JSON.stringify({ type: "subscribe", conversation_id: conversationId }));
  await subscribed;
  return {
    received: (messageId: string) =>
      frame(({ type, message_id }) => type === "message" && message_id === messageId),
    close: () => socket.close(),
  };
}

/** Aborts with an error of ours, which says more than a timeout's. */
function stuckAfter(limitMs: number): AbortSignal {
  const stuck = new AbortController();
  const reason = demoFailed(
    `its message got stuck for ${limitMs / 1000} s; .chat4all/server.log may say why`,
  );
  setTimeout(() => stuck.abort(reason), limitMs).unref();
  return stuck.signal;
}

function demoFailed(what: string): OperatingError {
  return new OperatingError("demo_failed", { message: `The demo failed: ${what}.` });
}

function printStop(state: string, ms: number, what: string): void {
  console.log(`  ${emphasise(state.padEnd(20))} ${ms.toFixed(1).padStart(8)} ms   ${emphasise(what, "dim")}`);
}

function within({ unseenMs }: Sighting): string {
  return ` (seen within ${Math.ceil(unseenMs)} ms)`;
}
