// Edits and deletes: events with numbers of their own, shown by the history as the message now stands.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { startDocumentedServer } from "../support/documented-server.ts";
import { expectProblem } from "../support/problems.ts";
import type { CallOptions, TestServer } from "../support/server.ts";
import { expectNothingStored } from "../support/stored-rows.ts";

let server: TestServer;
let conversation: string;
beforeAll(async () => {
  server = await startDocumentedServer();
  conversation = await server.makeGroup(["bob", "carol"]);
});
afterAll(async () => await server?.[Symbol.asyncDispose]());

const text = (words: string) => ({ type: "text", text: words });
const path = (number: number | string, id = conversation) => `/v1/conversations/${id}/messages/${number}`;
const edit = (number: number | string, payload: unknown, options?: CallOptions) =>
  server.call("PATCH", path(number), { payload }, options);
const remove = (number: number | string, options?: CallOptions) =>
  server.call("DELETE", path(number), undefined, options);
const itemAt = async (number: number) =>
  (await server.call("GET", `/v1/conversations/${conversation}/messages?after=${number - 1}&limit=1`)).body
    .items[0];
const time = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);

async function bobSays(words: string): Promise<{ number: number; messageId: string }> {
  const { body } = await server.post(conversation, words, { as: "bob" });
  return { number: body.sequence_number, messageId: body.message_id };
}

describe("PATCH", () => {
  test("answers 202 with the event's own number; the history shows the new words where the old ones were", async () => {
    const { number, messageId } = await bobSays("first");
    const created = await itemAt(number);
    const edited = await edit(number, text("second"), { as: "bob" });
    expect(edited.status).toBe(202);
    expect(edited.body).toEqual({
      message_id: messageId,
      conversation_id: conversation,
      sequence_number: number + 1,
      state: "enqueued",
      created_at: time,
      replay: false,
    });
    expect(await itemAt(number)).toEqual({
      ...created,
      payload: text("second"),
      edited_at: edited.body.created_at,
    });
    expect(await itemAt(number + 1)).toEqual({
      event: "message.edited",
      conversation_id: conversation,
      sequence_number: number + 1,
      message_id: messageId,
      sender_id: "bob",
      payload: text("second"),
      target_sequence_number: number,
      created_at: edited.body.created_at,
    });
    const third = await edit(number, { type: "custom", data: [3] }, { as: "bob" });
    expect(await itemAt(number)).toMatchObject({
      payload: { type: "custom", data: [3] },
      edited_at: third.body.created_at,
    });
  });

  test("is for the sender alone, not even for an owner", async () => {
    const { number } = await bobSays("mine");
    await expectNothingStored(server.postgres, async () => {
      for (const as of ["alice", "carol"])
        expectProblem(await edit(number, text("x"), { as }), 403, "not_allowed");
      expectProblem(await edit(number, text("x"), { as: "mallory" }), 403, "not_a_member");
    });
  });

  test.each([
    ["no payload", {}, ["/payload"]],
    ["an empty text", { payload: text("") }, ["/payload/text"]],
    ["metadata, which does not change", { payload: text("x"), metadata: {} }, ["/metadata"]],
  ])("refuses %s with 400", async (_what, body, paths) => {
    const { number } = await bobSays("x");
    const options = { as: "bob" };
    const answer = await expectNothingStored(server.postgres, () =>
      server.call("PATCH", path(number), body, options),
    );
    expectProblem(answer, 400, "invalid_request", paths);
  });
});

describe("DELETE", () => {
  test("answers 202 with the event's own number; the history keeps the place and drops the words", async () => {
    const { number, messageId } = await bobSays("to be forgotten");
    await edit(number, text("still to be forgotten"), { as: "bob" });
    const deleted = await remove(number, { as: "bob" });
    expect(deleted.status).toBe(202);
    expect(deleted.body).toMatchObject({ message_id: messageId, sequence_number: number + 2, replay: false });

    const item = await itemAt(number);
    expect(item).toMatchObject({ event: "message.created", deleted_at: deleted.body.created_at });
    expect(item).not.toHaveProperty("payload");
    expect(await itemAt(number + 2)).toEqual({
      event: "message.deleted",
      conversation_id: conversation,
      sequence_number: number + 2,
      message_id: messageId,
      sender_id: "bob",
      target_sequence_number: number,
      created_at: deleted.body.created_at,
    });
    const whole = await server.call("GET", `/v1/conversations/${conversation}/messages?limit=500`);
    expect(JSON.stringify(whole.body)).not.toContain("to be forgotten");
    const list = await server.call("GET", "/v1/conversations", undefined, { as: "carol" });
    expect(JSON.stringify(list.body)).not.toContain("to be forgotten");
    for (const at of [number, number + 1]) {
      expect((await server.call("GET", path(at))).body).not.toHaveProperty("payload");
    }
  });

  test("is for the sender and for owners", async () => {
    const { number } = await bobSays("rude");
    await expectNothingStored(server.postgres, async () => {
      expectProblem(await remove(number, { as: "carol" }), 403, "not_allowed");
      expectProblem(await remove(number, { as: "mallory" }), 403, "not_a_member");
    });
    expect((await remove(number, { as: "alice" })).status).toBe(202);
    expect(await itemAt(number + 1)).toMatchObject({ event: "message.deleted", sender_id: "alice" });
  });
});

describe("both", () => {
  test("answer 409 for a deleted message", async () => {
    const { number } = await bobSays("gone");
    await remove(number, { as: "bob" });
    await expectNothingStored(server.postgres, async () => {
      expectProblem(await edit(number, text("back"), { as: "bob" }), 409, "message_deleted");
      expectProblem(await remove(number, { as: "bob" }), 409, "message_deleted");
    });
  });

  test("answer 404 where no message is: beyond the end, at an event, in no conversation", async () => {
    const { number } = await bobSays("x");
    const event = (await edit(number, text("y"), { as: "bob" })).body.sequence_number;
    await expectNothingStored(server.postgres, async () => {
      for (const at of [event, 999_999, Number.MAX_SAFE_INTEGER]) {
        expectProblem(await edit(at, text("z"), { as: "bob" }), 404, "message_not_found");
        expectProblem(await remove(at, { as: "bob" }), 404, "message_not_found");
      }
      const nowhere = path(1, crypto.randomUUID());
      expectProblem(
        await server.call("PATCH", nowhere, { payload: text("z") }),
        404,
        "conversation_not_found",
      );
      expectProblem(await server.call("DELETE", nowhere), 404, "conversation_not_found");
    });
  });

  test("answer 400 for numbers that none can have", async () => {
    await expectNothingStored(server.postgres, async () => {
      for (const at of ["0", "-1", "1.5", "1e1", "01", "x", "9007199254740992", "1%20", "%E2%91%A0"]) {
        expectProblem(await edit(at, text("z")), 400, "invalid_request", ["/sequence_number"]);
        expectProblem(await remove(at), 400, "invalid_request", ["/sequence_number"]);
      }
    });
  });

  test("are safe to repeat with an Idempotency-Key, also after the other one and in upper case", async () => {
    const { number } = await bobSays("x");
    const [editKey, deleteKey] = [crypto.randomUUID(), crypto.randomUUID()];
    const withKey = (key: string) => ({ as: "bob", headers: { "idempotency-key": key } });
    const edited = await edit(number, text("y"), withKey(editKey));
    const deleted = await remove(number, withKey(deleteKey));
    expect([edited.body.replay, deleted.body.replay]).toEqual([false, false]);
    await expectNothingStored(server.postgres, async () => {
      const editedAgain = await edit(number, text("y"), withKey(editKey.toUpperCase()));
      const deletedAgain = await remove(number, withKey(deleteKey.toUpperCase()));
      for (const [first, again] of [
        [edited, editedAgain],
        [deleted, deletedAgain],
      ] as const) {
        expect(again.status).toBe(202);
        expect(again.headers.get("idempotent-replay")).toBe("true");
        expect(again.body).toEqual({ ...first.body, replay: true });
      }
      expectProblem(await edit(number, text("z"), withKey(editKey)), 422, "idempotency_key_reused");
    });
  });

  test("store one event for copies that are sent at once with one key", async () => {
    const { number } = await bobSays("x");
    const options = { as: "bob", headers: { "idempotency-key": crypto.randomUUID() } };
    const answers = await Promise.all(Array.from({ length: 10 }, () => edit(number, text("y"), options)));
    expect(new Set(answers.map(({ body }) => body.sequence_number)).size).toBe(1);
    expect(answers.filter(({ body }) => !body.replay)).toHaveLength(1);
  });

  test("refuse a key that is no UUID, and one that was used for another message", async () => {
    const [one, other] = [await bobSays("x"), await bobSays("y")];
    const options = { as: "bob", headers: { "idempotency-key": crypto.randomUUID() } };
    await remove(one.number, options);
    await expectNothingStored(server.postgres, async () => {
      expectProblem(await remove(other.number, options), 422, "idempotency_key_reused");
      for (const key of ["", "1", `${crypto.randomUUID()}, ${crypto.randomUUID()}`]) {
        const answer = await remove(other.number, { as: "bob", headers: { "idempotency-key": key } });
        expectProblem(answer, 400, "invalid_request", ["/idempotency-key"]);
      }
    });
  });
});
