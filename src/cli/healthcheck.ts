// For containers: is the server of this configuration ready?
import { readVariables } from "../config.ts";
import { OperatingError } from "../model/errors.ts";
import { defineCommand, jsonOption } from "./command.ts";
import { readConnection } from "./connection.ts";
import { print } from "./output.ts";

const answerDeadlineMs = 3_000;

export const healthcheck = defineCommand({
  summary: "Ask the server of this configuration whether it is ready",
  options: {
    url: { type: "string", value: "URL", help: "Another server than that on HOST and PORT." },
    ...jsonOption,
  },
  details:
    "Asks GET /readyz on HOST and PORT. Exit code 0 when it is ready (also when degraded), 1 when not.",
  examples: ["healthcheck", "healthcheck --url http://127.0.0.1:3001"],
  async run({ values }) {
    const url = values.url ?? ownUrl();
    const { status, report } = await ask(url);
    if (status !== 200) {
      throw new OperatingError("not_ready", { message: `${url} is not ready (HTTP ${status}): ${report}` });
    }
    print(values.json ? report : `${url} is ready`);
  },
});

function ownUrl(): string {
  const { HOST, PORT } = readVariables(["HOST", "PORT"], readConnection().variables);
  // A server that listens everywhere also listens on the loopback address.
  const host = HOST === "0.0.0.0" || HOST === "::" ? "127.0.0.1" : HOST.includes(":") ? `[${HOST}]` : HOST;
  return `http://${host}:${PORT}`;
}

async function ask(url: string): Promise<{ status: number; report: string }> {
  try {
    const answer = await fetch(new URL("/readyz", url), { signal: AbortSignal.timeout(answerDeadlineMs) });
    return { status: answer.status, report: (await answer.text()).trim() };
  } catch (cause) {
    throw new OperatingError("server_unreachable", { message: `nothing answers at ${url}`, cause });
  }
}
