// docs/dependencies.md against package.json.
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import manifest from "../../package.json" with { type: "json" };

const page = readFileSync(resolve(import.meta.dir, "../../docs/dependencies.md"), "utf8");
const [, runTime = "", development = ""] = page.split(/^## .*$/m);

test.each([
  ["run time", runTime, manifest.dependencies],
  ["development", development, manifest.devDependencies],
])("the table for %s lists exactly what package.json pins, each with a reason", (_name, section, pinned) => {
  const rows = [...section.matchAll(/^\| `([^`]+)` \| (\S+) \| (.+) \|$/gm)];
  expect(Object.fromEntries(rows.map(([, name, version]) => [name, version]))).toEqual(pinned);
});
