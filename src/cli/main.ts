// A command line comes in, an exit code leaves: 0 done, 1 failed, 2 not a command line that we know.
// A failure is one line that says what went wrong and what to do; its stack shows with LOG_LEVEL=debug only.
import { environment } from "../config.ts";
import { OperatingError } from "../model/errors.ts";
import { createClient } from "./client.ts";
import { type Command, columns, UsageError } from "./command.ts";
import { listDeadLetters, replayDeadLetter } from "./dead-letters.ts";
import { doctor } from "./doctor.ts";
import { healthcheck } from "./healthcheck.ts";
import { migrate } from "./migrate.ts";
import { outbox } from "./outbox.ts";
import { endWithReader, flushed, paint, print, say } from "./output.ts";
import { send } from "./send.ts";
import { serve } from "./serve.ts";
import { tail } from "./tail.ts";
import { token } from "./token.ts";
import { version } from "./version.ts";

const commands: Record<string, Command> = {
  serve,
  migrate,
  doctor,
  "client create": createClient,
  token,
  send,
  tail,
  outbox,
  "dead-letters": listDeadLetters,
  "dead-letters replay": replayDeadLetter,
  healthcheck,
  version,
};

/** Runs a command line (without the program's name) and answers its exit code, once all output is out. */
export async function main(args: string[]): Promise<number> {
  endWithReader();
  const code = await runCommand(args);
  await flushed();
  return code;
}

async function runCommand(args: string[]): Promise<number> {
  const [first, ...rest] = args;
  if (first === undefined) {
    say(overview());
    return 2;
  }
  if (first === "help") return runCommand([...rest, "--help"]);
  if (first === "--help" || first === "-h") {
    print(overview());
    return 0;
  }
  if (first === "--version") return runCommand(["version", ...rest]);

  const found = findCommand(args);
  const options = found === undefined ? args : found.args;
  const beforeDashes = options.includes("--") ? options.slice(0, options.indexOf("--")) : options;
  try {
    if (found === undefined) throw new UsageError(`unknown command "${first}"`);
    if (beforeDashes.some((word) => word === "--help" || word === "-h")) {
      print(found.command.help(found.name));
      return 0;
    }
    await found.command.run(found.args);
    return 0;
  } catch (error) {
    return fail(error, found?.name, beforeDashes.includes("--json"));
  }
}

// Names of two words come first: `dead-letters replay` is not `dead-letters` with a word.
function findCommand(args: string[]): { name: string; command: Command; args: string[] } | undefined {
  for (const length of [2, 1]) {
    const name = args.slice(0, length).join(" ");
    const command = Object.hasOwn(commands, name) ? commands[name] : undefined;
    if (command !== undefined) return { name, command, args: args.slice(length) };
  }
  return undefined;
}

function fail(error: unknown, name: string | undefined, asJson: boolean): number {
  const isUsage = error instanceof UsageError;
  const program = name === undefined ? "chat4all" : `chat4all ${name}`;
  let { message } = error as Error;
  if (isUsage) message += `; see \`${program} --help\``;
  if (asJson) {
    const code = error instanceof OperatingError ? error.code : isUsage ? "usage" : "failed";
    say(JSON.stringify({ error: { code, message } }));
  } else {
    say(`${program}: ${message}`);
  }
  if (environment()["LOG_LEVEL"] === "debug") say(Bun.inspect(error));
  return isUsage ? 2 : 1;
}

function overview(): string {
  const rows = Object.entries(commands).map(([name, { summary }]): [string, string] => [name, summary]);
  return [
    paint("bold", "Chat4All: a messaging backend that never loses, doubles or reorders a message."),
    "Usage: chat4all <command> [options]",
    `Commands:\n${columns(rows)}`,
    "Each has a --help of its own. Data goes to standard output, talk to standard error;\n" +
      "exit codes are 0 (done), 1 (failed) and 2 (not a command line that it knows).\n" +
      "What the environment does not say is taken from .chat4all/connection.json, which `up` writes.",
  ].join("\n\n");
}
