// Posting messages, one and many: stored once, answered the same ever after, refused without a trace.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { startDocumentedServer } from "../support/documented-server.ts";
import { expectProblem, expectProblemDocument } from "../support/problems.ts";
import type { Answer, CallOptions, TestServer } from "../support/server.ts";
import { expectNothingStored } from "../support/stored-rows.ts";

let server: TestServer;
let conversation: string;
beforeAll(async () => {
  server = await startDocumentedServer();
  conversation = await server.makeGroup(["bob"]);
});
afterAll(async () => await server?.[Symbol.asyncDispose]());

const text = (words: string) => ({ type: "text", text: words });
const message = (changes: object = {}) => ({
  message_id: crypto.randomUUID(),
  conversation_id: conversation,
  payload: text("hello"),
  ...changes,
});
const post = (body: unknown, options?: CallOptions) => server.call("POST", "/v1/messages", body, options);
const postBatch = (messages: unknown, options?: CallOptions) =>
  server.call("POST", "/v1/messages/batch", { messages }, options);
const newest = async () =>
  (await server.call("GET", `/v1/conversations/${conversation}/messages?limit=1`)).body.items[0];
const time = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);

describe("POST /v1/messages", () => {
  test("answers 202 with its number, and the history shows what was sent", async () => {
    const sent = message({
      payload: { type: "custom", data: { n: [1, 2.5, -3, null, true, "é😀"] } },
      metadata: { a: 1 },
    });
    const accepted = await post(sent);
    expect(accepted.status).toBe(202);
    expect(accepted.headers.get("idempotent-replay")).toBeNull();
    const { sequence_number, created_at } = accepted.body;
    expect(accepted.body).toEqual({
      message_id: sent.message_id,
      conversation_id: conversation,
      sequence_number: expect.any(Number),
      state: "enqueued",
      created_at: time,
      replay: false,
    });
    expect(await newest()).toEqual({
      event: "message.created",
      conversation_id: conversation,
      sequence_number,
      message_id: sent.message_id,
      sender_id: "alice",
      payload: sent.payload,
      metadata: { a: 1 },
      created_at,
    });
  });

  test("numbers a conversation's messages 1, 2, 3 under many senders at once", async () => {
    const id = await server.makeGroup(["bob"]);
    const answers = await Promise.all(
      Array.from({ length: 60 }, (_, index) =>
        server.post(id, `${index}`, { as: index % 2 ? "alice" : "bob" }),
      ),
    );
    const numbers = answers
      .map(({ body }) => body.sequence_number as number)
      .toSorted((left, right) => left - right);
    expect(numbers).toEqual(Array.from({ length: 60 }, (_, index) => index + 1));
  });

  test("answers a repeat with the first answer, marked as a replay, however the JSON is spelt", async () => {
    const sent = message({ payload: { type: "custom", data: { a: 1, b: [2] } }, metadata: { c: 3 } });
    const first = await post(sent);
    const spelt = `{ "metadata": {"c":3.0}, "payload": {"data":{"b":[2],"a":1e0},"type":"custom"},
      "conversation_id": "${conversation.toUpperCase()}", "message_id": "${sent.message_id.toUpperCase()}" }`;
    for (const again of [post(sent), post(undefined, { rawBody: spelt })]) {
      const answer = await expectNothingStored(server.postgres, () => again);
      expect(answer.status).toBe(202);
      expect(answer.headers.get("idempotent-replay")).toBe("true");
      expect(answer.body).toEqual({ ...first.body, replay: true });
    }
  });

  test("stores one of 20 copies that are sent at once, and gives all of them its number", async () => {
    const sent = message();
    const answers = await Promise.all(Array.from({ length: 20 }, () => post(sent)));
    expect(answers.map(({ status }) => status)).toEqual(Array(20).fill(202));
    expect(new Set(answers.map(({ body }) => `${body.sequence_number} ${body.created_at}`)).size).toBe(1);
    expect(answers.filter(({ body }) => !body.replay)).toHaveLength(1);
  });

  test("is a replay also after the message was edited, and after it was deleted", async () => {
    const sent = message();
    const first = await post(sent);
    const path = `/v1/conversations/${conversation}/messages/${first.body.sequence_number}`;
    expect((await server.call("PATCH", path, { payload: text("other") })).status).toBe(202);
    expect((await post(sent)).body).toEqual({ ...first.body, replay: true });
    expectProblem(await post({ ...sent, payload: text("other") }), 422, "message_id_reused");
    expect((await server.call("DELETE", path)).status).toBe(202);
    expect((await post(sent)).body).toEqual({ ...first.body, replay: true });
  });

  test("refuses a message_id that came with another body: 422, and nothing changes", async () => {
    const sent = message({ metadata: { a: 1 } });
    await post(sent);
    const others = [
      { ...sent, payload: text("other") },
      { ...sent, metadata: { a: 2 } },
      { ...sent, metadata: undefined },
    ];
    await expectNothingStored(server.postgres, async () => {
      for (const other of others) expectProblem(await post(other), 422, "message_id_reused");
    });
  });

  test("a message_id belongs to one sender in one conversation", async () => {
    const sent = message();
    const other = { ...sent, conversation_id: await server.makeGroup(["bob"]), payload: text("other") };
    const answers = [await post(sent), await post(sent, { as: "bob" }), await post(other)];
    expect(answers.map(({ status, body }) => `${status} ${body.replay}`)).toEqual(Array(3).fill("202 false"));
  });

  test("refuses strangers before it looks for an earlier copy, and conversations that are not there", async () => {
    const sent = message();
    await post(sent);
    await expectNothingStored(server.postgres, async () => {
      expectProblem(await post(sent, { as: "mallory" }), 403, "not_a_member");
      expectProblem(
        await post(message({ conversation_id: crypto.randomUUID() })),
        404,
        "conversation_not_found",
      );
    });
  });

  test("takes a text of 1 to 4,096 characters, counted as people count emoji", async () => {
    const emoji = "😀".repeat(4096);
    expect((await post(message({ payload: text(emoji) }))).status).toBe(202);
    expect((await newest()).payload.text).toBe(emoji);
    expect((await post(message({ payload: text("x") }))).status).toBe(202);
    await expectNothingStored(server.postgres, async () => {
      for (const words of ["", `${emoji}x`, "x".repeat(4097)]) {
        expectProblem(await post(message({ payload: text(words) })), 400, "invalid_request", [
          "/payload/text",
        ]);
      }
    });
  });

  test("takes a request of exactly 64 KiB, and not one byte more", async () => {
    const ofBytes = (bytes: number) => {
      const body = message({ payload: { type: "custom", data: "" } });
      const filler = "x".repeat(bytes - JSON.stringify(body).length);
      return { ...body, payload: { type: "custom", data: filler } };
    };
    expect((await post(ofBytes(65_536))).status).toBe(202);
    const answer = await expectNothingStored(server.postgres, () => post(ofBytes(65_537)));
    expectProblem(answer, 413, "body_too_large");
  });

  test.each([
    ["no message_id", { message_id: undefined }, ["/message_id"]],
    ["a message_id that is no UUID", { message_id: "1" }, ["/message_id"]],
    ["a message_id in braces", { message_id: `{${crypto.randomUUID()}}` }, ["/message_id"]],
    ["a conversation_id that is a number", { conversation_id: 7 }, ["/conversation_id"]],
    ["no payload", { payload: undefined }, ["/payload"]],
    ["a payload of an unknown type", { payload: { type: "image", data: 1 } }, ["/payload"]],
    ["a text that is a number", { payload: { type: "text", text: 1 } }, ["/payload/text"]],
    ["a custom payload without data", { payload: { type: "custom" } }, ["/payload/data"]],
    ["a text with data", { payload: { type: "text", text: "x", data: 1 } }, ["/payload/data"]],
    ["metadata that is a list", { metadata: [] }, ["/metadata"]],
    ["metadata that is null", { metadata: null }, ["/metadata"]],
    ["a field that nobody knows", { colour: "red" }, ["/colour"]],
  ])("refuses %s with 400 that says where, and stores nothing", async (_what, changes, paths) => {
    const answer = await expectNothingStored(server.postgres, () => post(message(changes)));
    expectProblem(answer, 400, "invalid_request", paths);
  });
});

describe("POST /v1/messages/batch", () => {
  const statuses = (answer: Answer) => answer.body.results.map(({ status }: { status: number }) => status);

  test("answers each row as POST would, in order, and numbers the good ones in order", async () => {
    const id = await server.makeGroup([]);
    const sent = Array.from({ length: 5 }, (_, index) =>
      message({ conversation_id: id, payload: text(`${index}`) }),
    );
    const answer = await postBatch(sent);
    expect(answer.status).toBe(200);
    expect(answer.body.results).toEqual(
      sent.map(({ message_id }, index) => ({
        status: 202,
        message_id,
        conversation_id: id,
        sequence_number: index + 1,
        state: "enqueued",
        created_at: time,
        replay: false,
      })),
    );
  });

  test("judges each row alone: bad ones get their problem, their neighbours are stored", async () => {
    const foreign = (
      await server.call("POST", "/v1/conversations", { kind: "group", members: [] }, { as: "bob" })
    ).body.id;
    const earlier = message();
    await post(earlier);
    const rows: [unknown, number, string?][] = [
      [message(), 202],
      [message({ payload: text("") }), 400, "invalid_request"],
      [null, 400, "invalid_request"],
      [message({ conversation_id: crypto.randomUUID() }), 404, "conversation_not_found"],
      [message({ conversation_id: foreign }), 403, "not_a_member"],
      [{ ...earlier, payload: text("other") }, 422, "message_id_reused"],
      [earlier, 202],
      [message({ payload: text("a\u0000b") }), 400, "invalid_request"],
      [
        message({ payload: { type: "custom", data: JSON.parse("[".repeat(5_000) + "]".repeat(5_000)) } }),
        400,
        "invalid_request",
      ],
      [message({ payload: { type: "custom", data: "界".repeat(30_000) } }), 413, "body_too_large"],
      [message({ colour: "red" }), 400, "invalid_request"],
      [message(), 202],
    ];
    const before = (await newest()).sequence_number;
    const answer = await postBatch(rows.map(([row]) => row));
    expect(statuses(answer)).toEqual(rows.map(([, status]) => status));
    for (const [index, result] of answer.body.results.entries()) {
      const code = rows[index]?.[2];
      if (code === undefined) continue;
      expect(result.code).toBe(code);
      expectProblemDocument(result, result.status);
    }
    expect(answer.body.results[6].replay).toBe(true);
    expect((await newest()).sequence_number).toBe(before + 2);
  });

  test("stores one of several copies in one batch, the others are replays of it", async () => {
    const [sent, other] = [message(), message()];
    const { body } = await postBatch([sent, other, sent, { ...sent, payload: text("different") }, sent]);
    const [first, between, second, different, third] = body.results;
    expect(first.replay).toBe(false);
    expect(between.replay).toBe(false);
    expect(second).toEqual({ ...first, replay: true });
    expect(third).toEqual({ ...first, replay: true });
    expect(different).toMatchObject({ status: 422, code: "message_id_reused" });
  });

  test("takes 500 rows, and refuses 501 or none as a whole", async () => {
    const rows = Array.from({ length: 501 }, () => message());
    const answer = await postBatch(rows.slice(1));
    expect(statuses(answer)).toEqual(Array(500).fill(202));
    const numbers: number[] = answer.body.results.map((row: Answer["body"]) => row.sequence_number);
    expect(numbers).toEqual(Array.from({ length: 500 }, (_, index) => (numbers[0] ?? 0) + index));
    await expectNothingStored(server.postgres, async () => {
      expectProblem(await postBatch(rows), 400, "invalid_request", ["/messages"]);
      expectProblem(await postBatch([]), 400, "invalid_request", ["/messages"]);
      expectProblem(await postBatch({}), 400, "invalid_request", ["/messages"]);
    });
  });

  test("takes at most 2 MiB", async () => {
    const filler = { ...message(), payload: { type: "custom", data: "" } };
    const row = (bytes: number) => ({
      ...filler,
      message_id: crypto.randomUUID(),
      payload: { type: "custom", data: "x".repeat(bytes) },
    });
    const rows = Array.from({ length: 41 }, () => row(50_000));
    const missing = 2 * 1024 * 1024 - JSON.stringify({ messages: [...rows, row(0)] }).length;
    expect(statuses(await postBatch([...rows, row(missing)]))).toEqual(Array(42).fill(202));
    const answer = await expectNothingStored(server.postgres, () => postBatch([...rows, row(missing + 1)]));
    expectProblem(answer, 413, "body_too_large");
  });
});
