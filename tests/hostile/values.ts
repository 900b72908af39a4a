// Values to send: what a JSON schema asks for, and what tends to break readers of JSON.
import * as fc from "fast-check";
import { echoMark } from "../support/problems.ts";

/** As much of JSON Schema as our documents use. */
export interface Schema {
  type?: string;
  const?: unknown;
  enum?: unknown[];
  anyOf?: Schema[];
  pattern?: string;
  format?: string;
  minLength?: number;
  maxLength?: number;
  minimum?: number;
  maximum?: number;
  items?: Schema;
  minItems?: number;
  maxItems?: number;
  properties?: Record<string, Schema>;
  required?: string[];
  additionalProperties?: unknown;
}

/** Values by the name of the member or parameter that they are for, of which some are there already. */
export type Known = Readonly<Record<string, fc.Arbitrary<unknown>>>;

/** Text that is hard to hold: odd code points, names that objects have already, lengths around the limits. */
export const oddText: fc.Arbitrary<string> = fc.oneof(
  { weight: 4, arbitrary: fc.string({ unit: "binary", maxLength: 40 }) },
  { weight: 2, arbitrary: fc.string({ unit: "grapheme", maxLength: 20 }) },
  {
    weight: 4,
    arbitrary: fc.constantFrom(
      "",
      " ",
      "\0",
      "a\0b",
      "\ud800",
      "\udc00\ud800",
      "\ufeff",
      "\u2028\u202e",
      "\r\nx-injected: 1",
      "__proto__",
      "constructor",
      "toJSON",
      "'; drop table messages; --",
      "${7*7}{{7*7}}%s%n",
      "../../../etc/passwd",
      "<script>alert(1)</script>",
    ),
  },
  {
    weight: 1,
    arbitrary: fc.constantFrom("x".repeat(129), "😀".repeat(128), "😀".repeat(4096), "x".repeat(4097)),
  },
);

const oddNumber = fc.oneof(
  fc.integer(),
  fc.double({ noNaN: true, noDefaultInfinity: true }),
  fc.constantFrom(
    -1,
    -0,
    0.5,
    2 ** 31,
    2 ** 53 - 1,
    2 ** 53,
    -(2 ** 53),
    1.8e19,
    5e-324,
    1.7976931348623157e308,
  ),
);

/** Any JSON value, odd ones rather often. */
const { anyJson } = fc.letrec<{ anyJson: unknown }>((tie) => ({
  anyJson: fc.oneof(
    { depthSize: "small", withCrossShrink: true },
    oddText,
    oddNumber,
    fc.constantFrom(true, false, null, echoMark, `${echoMark}\0`),
    fc.array(tie("anyJson"), { maxLength: 4 }),
    fc.dictionary(oddText, tie("anyJson"), { maxKeys: 4 }),
  ),
}));

/** What a schema asks for; `name` is that of the member which it is for. */
export function valueOf(schema: Schema, known: Known, name = ""): fc.Arbitrary<unknown> {
  const some = known[name];
  if (some !== undefined) return some;
  if (schema.enum !== undefined) return fc.constantFrom(...schema.enum);
  if (schema.const !== undefined) return fc.constant(schema.const);
  if (schema.anyOf !== undefined) return fc.oneof(...schema.anyOf.map((one) => valueOf(one, known)));
  switch (schema.type) {
    case "string":
      return textOf(schema);
    case "integer":
      return integerOf(schema);
    case "number":
      return oddNumber;
    case "boolean":
      return fc.boolean();
    case "null":
      return fc.constant(null);
    case "array":
      return fc.array(valueOf(schema.items ?? {}, known, `${name}[]`), {
        minLength: schema.minItems ?? 0,
        maxLength: Math.min(schema.maxItems ?? 5, 5),
      });
    case "object":
      return objectOf(schema, known);
    case undefined:
    default:
      return anyJson;
  }
}

function objectOf(schema: Schema, known: Known): fc.Arbitrary<unknown> {
  const properties = Object.entries(schema.properties ?? {});
  if (properties.length === 0)
    return fc.dictionary(fc.string({ maxLength: 8 }), fc.jsonValue(), { maxKeys: 3 });
  const members = Object.fromEntries(
    properties.map(([name, member]) => [name, valueOf(member, known, name)]),
  );
  return fc.record(members, { requiredKeys: schema.required ?? [] });
}

function textOf({ pattern, format, minLength = 0, maxLength = 40 }: Schema): fc.Arbitrary<string> {
  if (format === "uuid" || pattern?.includes("{12}")) return fc.uuid();
  if (pattern !== undefined) return fc.stringMatching(new RegExp(pattern));
  return fc.string({ unit: "grapheme", minLength, maxLength: Math.min(maxLength, 40) });
}

function integerOf({ minimum = Number.MIN_SAFE_INTEGER, maximum = Number.MAX_SAFE_INTEGER }: Schema) {
  const least = Math.max(minimum, 0);
  const small = fc.integer({ min: least, max: Math.min(maximum, least + 20) });
  const any = fc.maxSafeInteger().map((value) => Math.min(maximum, Math.max(minimum, value)));
  return fc.oneof({ weight: 5, arbitrary: small }, { weight: 1, arbitrary: any });
}

/** How a JSON value is spoilt; `at` picks the place. */
export interface Spoiling {
  at: number;
  way: "replace" | "remove" | "add" | "wrap" | "repeat";
  value: unknown;
  name: string;
}

export const spoiling: fc.Arbitrary<Spoiling> = fc.record({
  at: fc.nat(1000),
  way: fc.constantFrom(
    "replace" as const,
    "remove" as const,
    "add" as const,
    "wrap" as const,
    "repeat" as const,
  ),
  value: anyJson,
  name: oddText,
});

/** A copy of `value` that is spoilt in one place. */
export function spoil(value: unknown, { at, way, value: odd, name }: Spoiling): unknown {
  const copy = structuredClone(value);
  const places = placesIn(copy);
  const place = places[at % (places.length + 1)];
  if (way === "wrap") return [copy];
  if (place === undefined) return way === "add" ? withMember(copy, name, odd) : odd;
  const { parent, key } = place;
  if (way === "replace") set(parent, key, odd);
  else if (way === "remove") Reflect.deleteProperty(parent, key);
  else if (way === "add") withMember(parent, name, odd);
  else if (Array.isArray(parent)) parent.push(structuredClone(parent[Number(key)]));
  else set(parent, key, [Reflect.get(parent, key)]);
  return Array.isArray(parent) && way === "remove" ? (parent.splice(Number(key), 1), copy) : copy;
}

interface Place {
  parent: object;
  key: string;
}

function placesIn(value: unknown): Place[] {
  if (typeof value !== "object" || value === null) return [];
  return Object.entries(value).flatMap(([key, item]) => [{ parent: value, key }, ...placesIn(item)]);
}

function withMember(parent: unknown, name: string, value: unknown): unknown {
  if (typeof parent !== "object" || parent === null) return { [name]: value };
  set(parent, name, value);
  return parent;
}

// An assignment to __proto__ would set the prototype.
function set(parent: object, key: string, value: unknown): void {
  if (Array.isArray(parent)) parent[Number(key) || 0] = value;
  else Object.defineProperty(parent, key, { value, enumerable: true, configurable: true, writable: true });
}

/** Bodies as they go over the wire. */
export type Bytes = string | Uint8Array;

/** What makes of a JSON text something that is none, or a strange one. */
export const textSpoilings: readonly ((text: string) => Bytes)[] = [
  (text) => text.slice(0, -1),
  (text) => text.slice(0, Math.floor(text.length / 2)),
  (text) => `${text.slice(0, -1)},}`,
  (text) => `${text}${text}`,
  (text) => `\ufeff${text}`,
  (text) => Buffer.from(text, "utf16le"),
  (text) =>
    Buffer.concat([Buffer.from(text.slice(0, -1)), Buffer.from([0xff, 0xc0, 0x80, 0xed, 0xa0, 0x80])]),
  // Each member twice: the last one counts.
  (text) => `${text.slice(0, -1)},${text.slice(1)}`,
  (text) => text.replace(":", ":\u0000"),
  (text) => text.replaceAll('"', "'"),
  (text) => text.replace(/"[^"]*"(?=[,}])/, "NaN"),
  (text) => text.replace(/"[^"]*"(?=[,}])/, "1e999"),
  (text) => text.replace(/"[^"]*"(?=[,}])/, '"\\ud800\\u0000"'),
  (text) => text.replace(/"[^"]*"(?=[,}])/, `${"[".repeat(40)}${"]".repeat(40)}`),
  (text) => text.replace(/"[^"]*"(?=[,}])/, `${'{"a":'.repeat(5000)}1${"}".repeat(5000)}`),
  (text) => `${text}${" ".repeat(64 * 1024)}`,
  (text) => text.replace(/"[^"]*"(?=[,}])/, `"${"x".repeat(70_000)}"`),
  () => "",
  () => "\0",
  () => "[".repeat(20_000),
];
