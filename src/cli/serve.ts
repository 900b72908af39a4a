// Runs a node until a signal says stop: the first one drains it, the second one ends it at once.
import { readConfig, roles } from "../config.ts";
import { OperatingError } from "../model/errors.ts";
import { defineCommand, wholeNumber } from "./command.ts";
import { readServerVariables } from "./connection.ts";
import { say } from "./output.ts";

const portMax = 65_535;
// Past DRAIN_MS something hangs that should have ended itself by then.
const graceMs = 2_000;

export const serve = defineCommand({
  summary: "Run a node, or the parts of one that --roles names",
  options: {
    port: { type: "string", value: "N", help: "Port of HTTP and WebSocket; wins over PORT." },
    roles: { type: "string", value: "A,B", help: `Parts to run, of ${roles.join(", ")}; wins over ROLES.` },
  },
  details:
    "Everything else is configured by environment variables; docs/operations.md lists them. SIGTERM or Ctrl-C\n" +
    "drains it: what is in flight ends, sockets are closed so that they resume elsewhere, shards are handed over.",
  examples: ["serve", "serve --port 3001", "serve --roles outbox,router"],
  async run({ values }) {
    const variables = readServerVariables();
    if (wholeNumber("--port", values.port, portMax) !== undefined) variables["PORT"] = values.port;
    if (values.roles !== undefined) variables["ROLES"] = values.roles;
    const config = readConfig(variables);

    const stop = untilSignal();
    // Loaded here, so that the other commands start without the server's code.
    const { serve: startServer } = await import("../serve.ts");
    const server = await Promise.race([startServer(config), stop]);
    if (server === undefined) return;
    say(`Chat4All is at ${server.url}`);
    await stop;
    say("draining; a second signal ends it at once");
    await withinDeadline(server.drain(), config.DRAIN_MS + graceMs);
  },
});

function untilSignal(): Promise<undefined> {
  const { promise, resolve } = Promise.withResolvers<undefined>();
  let isAsked = false;
  const onSignal = () => {
    if (isAsked) process.exit(1);
    isAsked = true;
    resolve(undefined);
  };
  process.on("SIGTERM", onSignal);
  process.on("SIGINT", onSignal);
  return promise;
}

async function withinDeadline(work: Promise<void>, deadlineMs: number): Promise<void> {
  const { promise, reject } = Promise.withResolvers<never>();
  const message = `the drain did not end within ${deadlineMs} ms; ended without it`;
  const timer = setTimeout(() => reject(new OperatingError("drain_timed_out", { message })), deadlineMs);
  await Promise.race([work, promise]).finally(() => clearTimeout(timer));
}
