// What a stage could not pass and has parked, and how to send it on its way again.
import { OperatingError } from "../model/errors.ts";
import { type Api, apiOptions, CallFailure, openApi } from "./api.ts";
import { defineCommand, jsonOption, UsageError, wholeNumber } from "./command.ts";
import { print, say, visible } from "./output.ts";

interface DeadLetter {
  id: string;
  stage: string;
  conversation_id: string | null;
  sequence_number: number | null;
  reason: string;
  tries: number;
  parked_at: string;
  replay_requested_at: string | null;
  replayed_at: string | null;
}

const options = { ...apiOptions, ...jsonOption } as const;
const conversationOption = { type: "string", value: "ID", help: "Only those of this conversation." } as const;
const limitMax = 500;

export const listDeadLetters = defineCommand({
  summary: "List messages that were parked",
  options: {
    ...options,
    state: { type: "string", value: "STATE", help: "open, replayed or all.", default: "open" },
    conversation: conversationOption,
    limit: { type: "string", value: "COUNT", help: `At most so many, up to ${limitMax}.`, default: "50" },
  },
  details: "Newest first. The client needs the scope admin.",
  examples: ["dead-letters", "dead-letters --state all --json | jq -r '.items[].id'"],
  async run({ values }) {
    const limit = wholeNumber("--limit", values.limit, limitMax);
    const query = new URLSearchParams({ state: values.state ?? "open", limit: String(limit ?? 50) });
    if (values.conversation !== undefined) query.set("conversation_id", values.conversation);
    const list = await callAdmin<{ items: DeadLetter[]; next_cursor: string | null }>(
      openApi(values.url),
      "GET",
      `/v1/admin/dead-letters?${query.toString()}`,
    );
    if (values.json) return print(JSON.stringify(list));
    if (list.items.length === 0) return print("nothing is parked");
    for (const letter of list.items) print(describe(letter));
    if (list.next_cursor !== null) say("there are more; --limit shows up to 500");
  },
});

export const replayDeadLetter = defineCommand({
  summary: "Send parked messages on their way again",
  words: { usage: "[ID]", max: 1 },
  options: {
    ...options,
    all: { type: "boolean", help: "All that are open, in the order of conversation and number." },
    conversation: { ...conversationOption, help: "All that are open of this conversation, in order." },
  },
  details:
    "The client needs the scope admin. Consumers see that a record comes late on purpose by its header dead_letter_id.",
  examples: ["dead-letters replay 0199…", "dead-letters replay --all"],
  async run({ values, words }) {
    const [id] = words;
    const chosen = [id !== undefined, values.all, values.conversation !== undefined].filter(Boolean);
    if (chosen.length === 0) {
      throw new UsageError("the id of a dead letter is missing, or --all, or --conversation");
    }
    if (chosen.length > 1) throw new UsageError("either an id, or --all, or --conversation");
    const api = openApi(values.url);
    if (id === undefined) {
      const accepted = await replayMany(api, values.conversation);
      return print(values.json ? JSON.stringify({ accepted }) : `${accepted} on their way again`);
    }
    const path = `/v1/admin/dead-letters/${encodeURIComponent(id)}/replay`;
    const answer = await callAdmin<object>(api, "POST", path);
    print(values.json ? JSON.stringify(answer) : `${id} is on its way again`);
  },
});

/** Answers how many. One call sends only so many. */
async function replayMany(api: Api, conversation: string | undefined): Promise<number> {
  const body = conversation === undefined ? {} : { conversation_id: conversation };
  for (let total = 0; ; ) {
    const path = "/v1/admin/dead-letters/replay";
    const answer = await callAdmin<{ accepted: number; has_more: boolean }>(api, "POST", path, body);
    total += answer.accepted;
    if (!answer.has_more) return total;
  }
}

async function callAdmin<T>(api: Api, method: "GET" | "POST", path: string, body?: object): Promise<T> {
  try {
    return await api.asClient().call<T>(method, path, body);
  } catch (cause) {
    const isUnknownCall =
      cause instanceof CallFailure && (cause.code === "route_not_found" || cause.status === 501);
    if (!isUnknownCall) throw cause;
    const message = `the server at ${api.url} does not have the calls for dead letters; a newer version is needed`;
    throw new OperatingError("not_supported", { message, cause });
  }
}

function describe(letter: DeadLetter): string {
  const { id, stage, conversation_id, sequence_number, reason, tries, parked_at } = letter;
  const place = conversation_id === null ? "" : `  ${conversation_id} #${sequence_number}`;
  let again = letter.replay_requested_at === null ? "" : "  on its way again";
  if (letter.replayed_at !== null) again = `  replayed ${letter.replayed_at}`;
  return `${id}  ${parked_at}  ${stage}${place}  ${visible(reason)} (after ${tries} tries)${again}`;
}
