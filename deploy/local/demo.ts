/**
 * One message from one demo user to another, through the running system and by its public interface only, with the
 * moment at which each state was seen.
 */

import { OperatingError } from "../../src/model/errors.ts";
import { type ApiClient, openApi } from "./api.ts";
import type { Connection } from "./connection.ts";
import { emphasise } from "./terminal.ts";

/**
 * Sends the message and prints its walk; gives the conversation's id.
 * @throws {OperatingError} `api_failed` when a call is refused, `demo_failed` when the message is not delivered in 30 s.
 */
export async function showWalk(connection: Connection, signal: AbortSignal): Promise<string> {
  const limit = AbortSignal.any([signal, AbortSignal.timeout(30_000)]);
  const admin = await openApi(connection.url, connection, limit);
  const ada = await admin.as("ada");
  const grace = await admin.as("grace");
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

  const socket = await subscribe(grace, conversation.id, limit);
  try {
    const sentAt = performance.now();
    const elapsedMs = () => performance.now() - sentAt;
    const [accepted, seenMs] = await Promise.all([
      ada
        .call<{ sequence_number: number }>("POST", "/v1/messages", message)
        .then((answer) => ({ number: answer.sequence_number, ms: elapsedMs() })),
      socket.received(message.message_id).then(elapsedMs),
    ]);
    const states = await watchStates(ada, `${conversation.id}/messages/${accepted.number}`, elapsedMs, limit);
    console.log(
      `\nada writes to grace; it is number ${accepted.number} of their conversation ${conversation.id}:`,
    );
    printStop("persisted, enqueued", accepted.ms, "one commit in Postgres, then 202");
    printStop("on a socket", seenMs, "grace has it");
    printStop("published", states.published.ms, `Kafka has acknowledged it${within(states.published)}`);
    printStop("delivered", states.delivered.ms, `routed to chat4all.events${within(states.delivered)}`);
  } finally {
    socket.close();
  }
  return conversation.id;
}

/** When a state was first seen, and how long before that it was last looked for. */
interface Sighting {
  readonly ms: number;
  readonly unseenMs: number;
}

/** Asks for the message's state until it is delivered; a state that was passed between two looks counts as seen with the next. */
async function watchStates(
  client: ApiClient,
  message: string,
  elapsedMs: () => number,
  limit: AbortSignal,
): Promise<{ published: Sighting; delivered: Sighting }> {
  let published: Sighting | undefined;
  let lookedMs = elapsedMs();
  // Ever slower, so that a slow walk does not use up the rate limit.
  for (let pauseMs = 1; ; pauseMs *= 1.15) {
    const { state } = await client.call<{ state: string }>("GET", `/v1/conversations/${message}`);
    const sighting = { ms: elapsedMs(), unseenMs: elapsedMs() - lookedMs };
    if (state === "failed")
      throw new OperatingError("demo_failed", { message: "The message was parked as a dead letter." });
    if (state !== "enqueued") published ??= sighting;
    if (state === "delivered") return { published: published ?? sighting, delivered: sighting };
    limit.throwIfAborted();
    lookedMs = elapsedMs();
    await Bun.sleep(pauseMs);
  }
}

/** A socket that gets what is new in the conversation. */
async function subscribe(client: ApiClient, conversationId: string, limit: AbortSignal) {
  const url = `${client.url.replace("http", "ws")}/v1/stream?access_token=${client.token}`;
  const socket = new WebSocket(url);
  /** Resolves with the first frame that `isIt` says yes to. */
  const frame = (isIt: (frame: Record<string, unknown>) => boolean) =>
    new Promise<void>((resolve, reject) => {
      const fail = (what: string) => () =>
        reject(new OperatingError("demo_failed", { message: `The demo's socket ${what}.` }));
      socket.addEventListener("message", ({ data }) => isIt(JSON.parse(String(data))) && resolve());
      socket.addEventListener("close", fail("was closed"));
      limit.addEventListener("abort", fail("got no answer"));
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

function printStop(state: string, ms: number, what: string): void {
  console.log(`  ${emphasise(state.padEnd(20))} ${ms.toFixed(1).padStart(8)} ms   ${emphasise(what, "dim")}`);
}

function within({ unseenMs }: Sighting): string {
  return ` (seen within ${Math.ceil(unseenMs)} ms)`;
}
