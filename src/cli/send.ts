// Posts texts as a user, one after the other, so that they get their numbers in the order in which they were given.
// A post without a clear answer is made again with the same message_id: the server stores it once.
import { createReadStream, openSync } from "node:fs";
import { createInterface } from "node:readline";
import { apiOptions, type Caller, CallFailure, openApi } from "./api.ts";
import { type Arguments, defineCommand, jsonOption, UsageError } from "./command.ts";
import { paint, print, say } from "./output.ts";

interface Accepted {
  message_id: string;
  conversation_id: string;
  sequence_number: number;
  state: string;
  created_at: string;
  replay: boolean;
}

const triesMax = 8;
const backOffMaxSeconds = 5;

const options = {
  as: { type: "string", value: "USER", help: "Who sends." },
  to: {
    type: "string",
    value: "USER",
    help: "To whom: uses the direct conversation of the two, or makes it.",
  },
  conversation: { type: "string", value: "ID", help: "Instead of --to: where to." },
  "message-id": {
    type: "string",
    value: "UUID",
    help: "Chosen before, so that the same command can be repeated.",
  },
  file: {
    type: "string",
    value: "PATH",
    help: "Sends each line of a file that is not empty; - is standard input.",
  },
  ...apiOptions,
  ...jsonOption,
} as const;

export const send = defineCommand({
  summary: "Post messages as a user",
  words: { usage: '["text"]', max: 1 },
  options,
  details:
    "Prints the number that each message got, and its state: with --json the server's answer, one line each.\n" +
    "While the server is away or asks for patience, it waits and tries again a few times.",
  examples: [
    'send --as alice --to bob "Hello, Bob"',
    'send --as alice --conversation 0199… --message-id "$ID" "Once, however often this runs"',
    "send --as alice --to bob --file - < lines.txt",
  ],
  async run(args) {
    const { values } = args;
    checkArguments(args);
    const sender = openApi(values.url).asUser(values.as ?? "");
    // A server that is not there at all shows here, at once; patience is for one that goes away later.
    await sender.accessToken();
    const conversation = values.conversation ?? (await directConversation(sender, values.to ?? ""));
    for await (const text of textsOf(args)) {
      const message = {
        message_id: values["message-id"] ?? Bun.randomUUIDv7(),
        conversation_id: conversation,
        payload: { type: "text", text },
      };
      const accepted = await patiently(() => sender.call<Accepted>("POST", "/v1/messages", message));
      print(values.json ? JSON.stringify(accepted) : describe(accepted));
    }
  },
});

function checkArguments({ values, words }: Arguments<typeof options>): void {
  if (!values.as) throw new UsageError("--as is missing: who sends?");
  if ((values.to === undefined) === (values.conversation === undefined)) {
    throw new UsageError("give either --to or --conversation");
  }
  if ((values.file === undefined) === (words.length === 0)) {
    throw new UsageError("give either a text or --file");
  }
  if (values.file !== undefined && values["message-id"] !== undefined) {
    throw new UsageError("--message-id is for one text");
  }
}

async function directConversation(sender: Caller, other: string): Promise<string> {
  const body = { kind: "direct", members: [other] };
  const { id } = await patiently(() => sender.call<{ id: string }>("POST", "/v1/conversations", body));
  return id;
}

async function* textsOf({ values, words }: Arguments<typeof options>): AsyncGenerator<string> {
  if (values.file === undefined) {
    yield words[0] ?? "";
    return;
  }
  const input =
    values.file === "-" ? process.stdin : createReadStream("", { fd: openSync(values.file, "r") });
  for await (const line of createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY })) {
    if (line !== "") yield line;
  }
}

/** Repeats a call that is safe to repeat, as long as another outcome is possible and a bound is not reached. */
async function patiently<T>(call: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await call();
    } catch (error) {
      if (!(error instanceof CallFailure && error.isPassing) || tries === triesMax) throw error;
      const backOffSeconds = error.retryAfterSeconds ?? 0.1 * 2 ** tries;
      const waitSeconds = Math.min(backOffSeconds, backOffMaxSeconds);
      say(`${error.message}; trying again in ${waitSeconds} s`);
      await Bun.sleep(waitSeconds * 1000);
    }
  }
}

function describe({ sequence_number, state, message_id, conversation_id, replay }: Accepted): string {
  const number = paint("bold", `#${sequence_number}`);
  const again = replay ? " (already stored before)" : "";
  return `${number} ${paint("green", state)}${again}  message ${message_id}  conversation ${conversation_id}`;
}
