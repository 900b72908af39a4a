// Looks at everything that a node of this configuration needs, changes nothing, and says what to do about what it
// finds. Checks do not depend on each other: all problems show at once.
import { OperatingError } from "../model/errors.ts";
import { defineCommand, jsonOption } from "./command.ts";
import { readServerVariables } from "./connection.ts";
import type { Finding } from "./doctor-checks.ts";
import { paint, print } from "./output.ts";

export const doctor = defineCommand({
  summary: "Check the configuration and everything that it names",
  options: { ...jsonOption },
  details: "Looks only, and changes nothing. Exit code 1 when there is a problem.",
  examples: ["doctor", "doctor --json | jq '.findings[] | select(.ok | not)'"],
  async run({ values }) {
    const variables = readServerVariables();
    // Loaded here, since no other command needs the clients of Kafka and Redis.
    const { checks } = await import("./doctor-checks.ts");
    const findings = (await Promise.all(checks.map((check) => check(variables)))).flat();
    if (values.json) print(JSON.stringify({ findings }));
    else for (const finding of findings) print(describe(finding));
    const problems = findings.filter(({ ok }) => !ok).length;
    if (problems > 0) {
      const message = problems === 1 ? "there is a problem" : `there are ${problems} problems`;
      throw new OperatingError("problems_found", { message });
    }
  },
});

function describe({ subject, ok, detail }: Finding): string {
  const mark = ok ? paint("green", "ok     ") : paint("red", "problem");
  return `${mark}  ${subject.padEnd(13)}  ${detail}`;
}
