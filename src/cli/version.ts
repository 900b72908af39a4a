// Which build this is.
import manifest from "../../package.json" with { type: "json" };
import { defineCommand, jsonOption } from "./command.ts";
import { print } from "./output.ts";

export const version = defineCommand({
  summary: "Print which build this is",
  options: { ...jsonOption },
  examples: ["version", "version --json"],
  async run({ values }) {
    const build = { name: manifest.name, version: manifest.version, bun: Bun.version };
    print(values.json ? JSON.stringify(build) : `chat4all ${build.version} (Bun ${build.bun})`);
  },
});
