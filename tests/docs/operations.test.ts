// The table of variables in docs/operations.md against the schema that reads them.
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import type { TSchema } from "@sinclair/typebox";
import { environmentSchema } from "../../src/config.ts";

const page = readFileSync(resolve(import.meta.dir, "../../docs/operations.md"), "utf8");

test("lists every variable with its default and meaning, and no other", () => {
  const table = /<!-- test: variables -->\n.*\n.*\n((?:\|.*\n)+)/.exec(page)?.[1] ?? "";
  const properties = Object.entries<TSchema>(environmentSchema.properties);
  const rows = properties.map(
    ([name, schema]) => `| \`${name}\` | ${shown(name, schema)} | ${schema.description} |`,
  );
  expect(table.trimEnd().split("\n")).toEqual(rows);
});

function shown(name: string, { default: fallback }: TSchema): string {
  if (fallback === undefined) return environmentSchema.required?.includes(name as never) ? "required" : "";
  const text = Array.isArray(fallback) ? fallback.join(",") : JSON.stringify(fallback).replaceAll('"', "");
  return text === "" ? "none" : `\`${text}\``;
}
