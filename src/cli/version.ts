// Which build this is.
import { build } from "../version.ts";
import { defineCommand, jsonOption } from "./command.ts";
import { print } from "./output.ts";

export const version = defineCommand({
  summary: "Print which build this is",
  options: { ...jsonOption },
  examples: ["version", "version --json"],
  async run({ values }) {
    const facts = { ...build, bun: Bun.version };
    print(
      values.json ? JSON.stringify(facts) : `chat4all ${facts.version} (${facts.commit}, Bun ${facts.bun})`,
    );
  },
});
