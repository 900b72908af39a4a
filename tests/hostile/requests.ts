// Requests to every call of the OpenAPI document: as it asks for, and spoilt in one to three ways. What is made is
// plain data, so that a failing one can be printed and sent again.
import * as fc from "fast-check";
import { echoMark } from "../support/problems.ts";
import {
  type Bytes,
  type Known,
  oddText,
  type Schema,
  spoil,
  spoiling,
  textSpoilings,
  valueOf,
} from "./values.ts";

interface Parameter {
  in: string;
  name: string;
  required?: boolean;
  schema: Schema;
}

interface Operation {
  parameters?: Parameter[];
  requestBody?: { content: Record<string, { schema: Schema }> };
}

/** As much of an OpenAPI document as is used here. */
export interface CallsDocument {
  paths: Record<string, Record<string, object>>;
}

/** Who calls. */
export type Role = "owner" | "member" | "outsider" | "operator" | "client" | "nobody" | "forger";

/** A request; the token of its `role` is put in when it is sent, unless it has an authorization header. */
export interface HostileRequest {
  /** The call that it was made for, as `POST /v1/messages`. */
  call: string;
  role: Role;
  method: string;
  target: string;
  headers: [string, string][];
  body?: Bytes | Bytes[] | undefined;
}

interface Draft extends HostileRequest {
  /** The body while it is still a value. */
  value?: unknown;
}

/** Every call of a document, as `POST /v1/messages`. */
export function callsOfDocument(document: CallsDocument): string[] {
  return Object.entries(document.paths).flatMap(([path, operations]) =>
    Object.keys(operations).map((method) => `${method.toUpperCase()} ${path}`),
  );
}

/** Requests for one call: a quarter is as its document asks for, if `known` has values that are there. */
export function requestsFor(
  document: CallsDocument,
  call: string,
  known: Known,
): fc.Arbitrary<HostileRequest> {
  const [method = "", path = ""] = call.split(" ");
  const operation: Operation | undefined = document.paths[path]?.[method.toLowerCase()];
  if (operation === undefined) throw new Error(`${call} is not in the document`);
  const goodOne = goodRequest(call, method, path, operation, known);
  const spoilt = fc
    .tuple(goodOne, fc.array(draftSpoiling, { minLength: 1, maxLength: 3 }))
    .map(([good, spoilings]) => {
      const draft = structuredClone(good);
      for (const change of spoilings) change(draft);
      return draft;
    });
  return fc
    .oneof({ weight: 1, arbitrary: goodOne }, { weight: 3, arbitrary: spoilt })
    .map(({ value, ...request }) =>
      value === undefined ? request : { ...request, body: JSON.stringify(value) },
    );
}

function goodRequest(
  call: string,
  method: string,
  path: string,
  { parameters = [], requestBody }: Operation,
  known: Known,
): fc.Arbitrary<Draft> {
  const inPlace = (place: string) => parameters.filter((parameter) => parameter.in === place);
  const contents = Object.entries(requestBody?.content ?? { none: undefined });
  const content = fc.oneof(
    ...contents.map(([contentType, described]) =>
      fc.record({
        contentType: fc.constant(contentType),
        value: described === undefined ? fc.constant(undefined) : valueOf(described.schema, known),
      }),
    ),
  );
  return fc
    .record({
      role: rolesFor(path),
      path: parametersOf(inPlace("path"), known, true),
      query: parametersOf(inPlace("query"), known),
      header: parametersOf(inPlace("header"), known),
      content,
    })
    .map(({ role, path: inPath, query, header, content: { contentType, value } }) => {
      const target = path.replaceAll(/\{(\w+)\}/g, (_, name: string) => encodeText(String(inPath[name])));
      const draft: Draft = { call, role, method, target: target + queryText(query), headers: [] };
      for (const [name, text] of Object.entries(header)) draft.headers.push([name, headerText(String(text))]);
      if (value !== undefined) draft.headers.push(["content-type", contentType]);
      if (contentType === "application/x-www-form-urlencoded") draft.body = formText(value);
      else if (value !== undefined) draft.value = value;
      return draft;
    });
}

function rolesFor(path: string): fc.Arbitrary<Role> {
  const right: Role = path.startsWith("/oauth")
    ? "client"
    : /^\/v1\/(admin|users)/.test(path)
      ? "operator"
      : "owner";
  return fc.oneof(
    { weight: 6, arbitrary: fc.constant(right) },
    { weight: 2, arbitrary: fc.constantFrom<Role>("member", "outsider") },
    { weight: 1, arbitrary: fc.constantFrom<Role>("nobody", "forger", "operator") },
  );
}

function parametersOf(parameters: Parameter[], known: Known, areAllNeeded = false) {
  const values = Object.fromEntries(
    parameters.map(({ name, schema }) => [name, valueOf(schema, known, name)]),
  );
  return fc.record(values, areAllNeeded ? {} : { requiredKeys: [] });
}

const queryText = (query: object) => {
  const pairs = Object.entries(query).map(([name, value]) => `${name}=${encodeText(String(value))}`);
  return pairs.length === 0 ? "" : `?${pairs.join("&")}`;
};

const formText = (value: unknown) =>
  Object.entries(value as object)
    .map(([name, item]) => `${encodeText(name)}=${encodeText(String(item))}`)
    .join("&");

/** Percent-encoded; a lone surrogate, which has no UTF-8, as the bytes that it would have. */
function encodeText(text: string): string {
  return (
    encodeURIComponent(text.toWellFormed() === text ? text : text.replaceAll(/\p{Surrogate}/gu, "")) || "%20"
  );
}

/** What a header can hold. */
const headerText = (text: string) => text.replaceAll(/[^\x20-\x7e]/g, "?").slice(0, 4000);

const contentTypes = [
  "",
  "text/plain",
  "application/json; charset=utf-16",
  "application/xml",
  "application/x-www-form-urlencoded",
  "multipart/form-data; boundary=x",
  "multipart/form-data",
  "APPLICATION/JSON",
  "application/json, text/html",
  "application/problem+json",
];
const methods = ["GET", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE"];
const pathSpoilings: readonly ((target: string) => string)[] = [
  (target) => `${target}/`,
  (target) => `/${target}`,
  (target) => target.toUpperCase(),
  (target) => target.replace("/v1", "/v1/../v1"),
  (target) => target.replace("/v1", "/v1/./"),
  (target) => target.replace("/v1", "/v1%2f"),
  (target) => target.replace(/[0-9a-f-]{36}/, "%00"),
  (target) => target.replace(/[0-9a-f-]{36}/, "%ff%fe"),
  (target) => target.replace(/[0-9a-f-]{36}/, "%ED%A0%80"),
  (target) => target.replace(/[0-9a-f-]{36}/, "%"),
  (target) => target.replace(/[0-9a-f-]{36}/, "undefined"),
  (target) => target.replace(/[0-9a-f-]{36}/, "x".repeat(5000)),
  (target) => target.replace(/[0-9a-f-]{36}/, `${crypto.randomUUID()}%0a`),
  ...["%00", "a%00b", "%ff", "%ED%A0%80", "%", "%2e%2e", "x".repeat(129), "%F0%9F%98%80"].map(
    (text) => (target: string) => target.replace(/(?<=\/(users|members)\/)[^/?]+/, text),
  ),
  (target) => target.replace(/\/\d+$/, "/0"),
  (target) => target.replace(/\/\d+$/, "/9007199254740993"),
  (target) => target.replace(/\/\d+$/, "/1e3"),
  (target) => target.replace(/\/\d+$/, "/+1"),
  (target) => target.replace(/\/\d+$/, "/%EF%BC%91"),
];
const queries = [
  "limit=1&limit=2",
  "limit=0",
  "limit=-1",
  "limit=1e2",
  "limit=",
  "limit",
  "after=1&before=2",
  "after=99999999999999999999",
  "cursor=%00",
  "cursor=%ff",
  "cursor=eyJhIjoxfQ",
  "__proto__=1",
  "constructor[prototype]=1",
  "a[]=1&a[]=2",
  "=",
  "&&&",
  "%",
  "access_token=x",
  `limit=${echoMark}`,
  `${"z".repeat(80)}=${echoMark}`,
  `x=${"y".repeat(3000)}`,
];
const headers: readonly [string, string][] = [
  ["traceparent", "00-00000000000000000000000000000000-0000000000000000-00"],
  ["traceparent", "ff-zz"],
  ["traceparent", "x".repeat(3000)],
  ["x-request-id", "'; drop table messages"],
  ["idempotency-key", "not-a-uuid"],
  ["last-event-id", "-1"],
  ["last-event-id", "9007199254740993"],
  ["authorization", "Bearer"],
  ["authorization", "Bearer a.b.c"],
  ["authorization", "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSJ9."],
  ["authorization", "Basic OjA="],
  ["authorization", "Basic AAAA"],
  ["authorization", `Bearer ${"x".repeat(6000)}`],
  ["authorization", "Bearer \u00ff\u00fe"],
  ["accept", "application/xml"],
  ["accept-encoding", "gzip, br;q=0"],
  ["content-encoding", "gzip"],
  ["expect", "100-continue"],
  ["upgrade", "h2c"],
  ["range", "bytes=0-0"],
  ["if-none-match", "*"],
  ["x-forwarded-for", "127.0.0.1, ::1"],
  ["x-http-method-override", "DELETE"],
  ["origin", "null"],
  ["cookie", "__proto__=1; a=\u00e9"],
  ["idempotency-key", echoMark],
  ["authorization", `Bearer ${echoMark}`],
  ["x-long", "x".repeat(6000)],
];

/** One way to spoil a draft, as a function that a failure can print. */
const draftSpoiling: fc.Arbitrary<(draft: Draft) => void> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.array(spoiling, { minLength: 1, maxLength: 2 }).map((spoilings) => (draft: Draft) => {
      if (draft.value === undefined) return;
      for (const one of spoilings) draft.value = spoil(draft.value, one);
      if (draft.value === undefined) draft.value = null;
    }),
  },
  {
    weight: 4,
    arbitrary: fc.constantFrom(...textSpoilings).map((change) => (draft: Draft) => {
      const text = draft.value === undefined ? draft.body : JSON.stringify(draft.value);
      if (typeof text === "string") draft.body = change(text);
      draft.value = undefined;
    }),
  },
  {
    weight: 1,
    arbitrary: fc.nat(1000).map((at) => (draft: Draft) => {
      const text = draft.value === undefined ? draft.body : JSON.stringify(draft.value);
      if (typeof text !== "string" || text === "") return;
      draft.value = undefined;
      draft.body = [text.slice(0, at % text.length), text.slice(at % text.length)].filter(
        (part) => part !== "",
      );
    }),
  },
  {
    weight: 2,
    arbitrary: fc.constantFrom(...contentTypes).map((type) => (draft: Draft) => {
      draft.headers = [...draft.headers.filter(([name]) => name !== "content-type"), ["content-type", type]];
    }),
  },
  {
    weight: 1,
    arbitrary: fc.constantFrom(...methods).map((method) => (draft: Draft) => {
      draft.method = method;
    }),
  },
  {
    weight: 2,
    arbitrary: fc.constantFrom(...pathSpoilings).map((change) => (draft: Draft) => {
      draft.target = change(draft.target);
    }),
  },
  {
    weight: 1,
    arbitrary: oddText.map((text) => (draft: Draft) => {
      draft.target = draft.target.replace(/[0-9a-f-]{36}|\/\d+$/, encodeText(text));
    }),
  },
  {
    weight: 2,
    arbitrary: fc.constantFrom(...queries).map((query) => (draft: Draft) => {
      draft.target += `${draft.target.includes("?") ? "&" : "?"}${query}`;
    }),
  },
  {
    weight: 2,
    arbitrary: fc.constantFrom(...headers).map((header) => (draft: Draft) => {
      draft.headers = [...draft.headers, header];
    }),
  },
);
