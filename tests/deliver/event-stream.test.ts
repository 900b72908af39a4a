// Event streams as a browser reads them, and as it comes again.
import { afterAll, beforeAll, describe, expect, spyOn, test } from "bun:test";
import net from "node:net";
import { until } from "../support/until.ts";
import { openApp, type TestApp, tokenOf } from "./app.ts";
import { OwnRedis } from "./own-redis.ts";
import { range, Stand } from "./stand.ts";

let stand: Stand;
let app: TestApp;
const redis = new OwnRedis();
beforeAll(async () => {
  stand = await Stand.open();
  await redis.start();
  app = await openApp(stand, redis.url);
});
afterAll(async () => {
  await app[Symbol.asyncDispose]();
  await redis[Symbol.asyncDispose]();
  await stand[Symbol.asyncDispose]();
});

interface StreamRequest {
  query?: string;
  headers?: Record<string, string>;
  user?: string;
  token?: string;
}

function request(
  conversationId: string,
  { query = "", headers = {}, user = "ann", token }: StreamRequest,
  at = app,
) {
  return fetch(`${at.url}/v1/conversations/${conversationId}/events${query}`, {
    headers: { authorization: `Bearer ${token ?? tokenOf({ user })}`, ...headers },
  });
}

/** A stream that is read; `ids` are those of its events. */
class Reading implements AsyncDisposable {
  text = "";
  isOver = false;
  readonly headers: Headers;
  readonly #reader;

  constructor(response: Response) {
    expect(response.status).toBe(200);
    this.headers = response.headers;
    this.#reader = response.body?.getReader();
    void this.#read();
  }

  static async open(conversationId: string, options: StreamRequest = {}, at = app): Promise<Reading> {
    const reading = new Reading(await request(conversationId, options, at));
    await until(() => reading.text.startsWith("retry: "), "the stream is open");
    return reading;
  }

  get ids(): number[] {
    return [...this.text.matchAll(/^id: (\d+)$/gm)].map(([, id]) => Number(id));
  }

  async #read(): Promise<void> {
    const decoder = new TextDecoder();
    try {
      for (
        let chunk = await this.#reader?.read();
        chunk?.done === false;
        chunk = await this.#reader?.read()
      ) {
        this.text += decoder.decode(chunk.value, { stream: true });
      }
    } finally {
      this.isOver = true;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#reader?.cancel();
  }
}

describe("an event stream", () => {
  test("has each event's number as its id, its kind, and its JSON on one line", async () => {
    const conversationId = await stand.makeGroup("ann", "bob");
    await using reading = await Reading.open(conversationId);
    app.hub.publish([
      ...(await stand.commit(conversationId)),
      await stand.remove(conversationId, "ann", "bob"),
    ]);
    await until(() => reading.ids.length === 2, "both events are there");
    expect(reading.headers.get("content-type")).toStartWith("text/event-stream");
    const [, first = "", second = ""] = reading.text.split("\n\n");
    expect(first).toMatch(/^id: 1\nevent: message.created\ndata: \{.*\}$/);
    expect(second).toMatch(/^id: 2\nevent: member.removed\ndata: \{.*\}$/);
    expect(JSON.parse(first.split("data: ")[1] ?? "")).toMatchObject({
      event: "message.created",
      conversation_id: conversationId,
      sequence_number: 1,
    });
  });

  test("starts after `after`, after Last-Event-ID where both are there, and else at what is newest", async () => {
    const conversationId = await stand.makeGroup("ann");
    await stand.commit(conversationId, 5);
    await using after = await Reading.open(conversationId, { query: "?after=1" });
    await using resumed = await Reading.open(conversationId, {
      query: "?after=1",
      headers: { "last-event-id": "3" },
    });
    await using newest = await Reading.open(conversationId);
    app.hub.publish(await stand.commit(conversationId));
    for (const [reading, from] of [
      [after, 1],
      [resumed, 3],
      [newest, 5],
    ] as const) {
      await until(() => reading.ids.at(-1) === 6, "the newest event is there");
      expect(reading.ids).toEqual(range(from, 6));
    }
  });

  test("gets everything once over many reconnections, while another instance publishes", async () => {
    await using other = await openApp(stand, redis.url);
    const conversationId = await stand.makeGroup("ann");
    const got: number[] = [];
    const publishing = (async () => {
      for (let round = 0; round < 60; round += 1) other.hub.publish(await stand.commit(conversationId, 5));
    })();
    while (got.length < 300) {
      const headers = { "last-event-id": String(got.at(-1) ?? 0) };
      await using reading = await Reading.open(conversationId, { headers });
      const wanted = Math.min(300, got.length + 40);
      await until(() => got.length + reading.ids.length >= wanted, "some events are there");
      got.push(...reading.ids);
    }
    await publishing;
    expect(got).toEqual(range(0, 300));
  });

  test("is refused before it starts", async () => {
    const conversationId = await stand.makeGroup("ann");
    const statuses = async (options: StreamRequest, id = conversationId) =>
      (await request(id, options)).status;
    expect(await statuses({ user: "eve" })).toBe(403);
    expect(await statuses({}, crypto.randomUUID())).toBe(404);
    expect(await statuses({ query: "?after=1" })).toBe(400);
    expect(await statuses({ query: "?after=-1" })).toBe(400);
    expect(await statuses({ query: "?unknown=1" })).toBe(400);
    expect(await statuses({ headers: { "last-event-id": "x" } })).toBe(400);
    expect(await statuses({}, "no-uuid")).toBe(400);
    expect(await statuses({ token: tokenOf({ user: "ann", scopes: ["messages:write"] }) })).toBe(403);
    app.revoked.add("revoked-before");
    expect(await statuses({ token: tokenOf({ user: "ann", id: "revoked-before" }) })).toBe(401);
  });

  test("takes the token from its URL", async () => {
    const conversationId = await stand.makeGroup("ann");
    const token = encodeURIComponent(tokenOf({ user: "ann" }));
    const response = await fetch(
      `${app.url}/v1/conversations/${conversationId}/events?access_token=${token}`,
    );
    expect(response.status).toBe(200);
    await response.body?.cancel();
  });
});

describe("an event stream ends", () => {
  test("with the removal of its member, and is refused after", async () => {
    const conversationId = await stand.makeGroup("ann", "bob");
    await using reading = await Reading.open(conversationId, { user: "bob" });
    const removal = await stand.remove(conversationId, "ann", "bob");
    app.hub.publish([removal, ...(await stand.commit(conversationId))]);
    await until(() => reading.isOver, "the stream is over");
    expect(reading.ids).toEqual([1]);
    expect((await request(conversationId, { user: "bob" })).status).toBe(403);
  });

  test("when its token expires, and when it is revoked", async () => {
    const conversationId = await stand.makeGroup("ann");
    await using expiring = await Reading.open(conversationId, { token: tokenOf({ user: "ann", life: 1 }) });
    await using revoked = await Reading.open(conversationId, {
      token: tokenOf({ user: "ann", id: "a-stream" }),
    });
    app.hub.revoke(["a-stream"]);
    await until(() => revoked.isOver && expiring.isOver, "both are over");
  });

  test("when the instance drains", async () => {
    const draining = await openApp(stand, redis.url);
    const conversationId = await stand.makeGroup("ann");
    await using reading = await Reading.open(conversationId, {}, draining);
    draining.connections.closeAll();
    await until(() => reading.isOver, "the stream is over");
    expect((await request(conversationId, {}, draining)).status).toBe(503);
    await draining[Symbol.asyncDispose]();
  });

  test("when its client goes, or does not read", async () => {
    const conversationId = await stand.makeGroup("ann");
    const before = app.connections.size;
    const reading = await Reading.open(conversationId);
    await reading[Symbol.asyncDispose]();
    await until(() => app.connections.size === before, "the stream is forgotten");

    const { port } = new URL(app.url);
    const slow = net.connect(Number(port), "127.0.0.1");
    slow.on("error", () => undefined);
    const path = `/v1/conversations/${conversationId}/events`;
    slow.write(
      `GET ${path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${tokenOf({ user: "ann" })}\r\n\r\n`,
    );
    slow.pause();
    await until(() => app.connections.size === before + 1, "the stream is open");
    await until(
      async () => {
        app.hub.publish(await stand.commit(conversationId, 200, "x".repeat(4000)));
        return app.connections.size === before;
      },
      "the slow stream is ended",
      20_000,
    );
    slow.destroy();
  });
});

test("a stream that is refused leaves no timer behind", async () => {
  const timers = spyOn(globalThis, "setInterval");
  try {
    for (let count = 0; count < 3; count += 1) {
      const refused = await request(crypto.randomUUID(), {});
      expect(refused.status).toBe(404);
    }
    expect(timers).not.toHaveBeenCalled();
  } finally {
    timers.mockRestore();
  }
});
