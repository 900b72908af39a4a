// What a stage could not pass and has parked, and how to send it on its way again.
import { OperatingError } from "../model/errors.ts";
import { type Api, apiOptions, CallFailure, openApi } from "./api.ts";
import { defineCommand, jsonOption, UsageError } from "./command.ts";
import { print, visible } from "./output.ts";

interface DeadLetter {
  id: string;
  stage: string;
  conversation_id: string | null;
  sequence_number: number | null;
  reason: string;
  tries: number;
  parked_at: string;
  replayed_at: string | null;
}

const options = { ...apiOptions, ...jsonOption } as const;

export const listDeadLetters = defineCommand({
  summary: "List messages that were parked",
  options,
  details: "The client needs the scope admin.",
  examples: ["dead-letters", "dead-letters --json | jq -r '.items[].id'"],
  async run({ values }) {
    const list = await callAdmin<{ items: DeadLetter[] }>(
      openApi(values.url),
      "GET",
      "/v1/admin/dead-letters",
    );
    if (values.json) return print(JSON.stringify(list));
    if (list.items.length === 0) return print("nothing is parked");
    for (const letter of list.items) print(describe(letter));
  },
});

export const replayDeadLetter = defineCommand({
  summary: "Send a parked message on its way again",
  words: { usage: "ID", max: 1 },
  options,
  details: "The client needs the scope admin. Consumers drop what they already have, by its number.",
  examples: ["dead-letters replay 0199…"],
  async run({ values, words }) {
    const [id] = words;
    if (id === undefined) throw new UsageError("the id of a dead letter is missing");
    const path = `/v1/admin/dead-letters/${encodeURIComponent(id)}/replay`;
    const answer = await callAdmin<object>(openApi(values.url), "POST", path);
    print(values.json ? JSON.stringify(answer) : `${id} is on its way again`);
  },
});

async function callAdmin<T>(api: Api, method: "GET" | "POST", path: string): Promise<T> {
  try {
    return await api.asClient().call<T>(method, path);
  } catch (cause) {
    const isUnknownCall =
      cause instanceof CallFailure && (cause.code === "route_not_found" || cause.status === 501);
    if (!isUnknownCall) throw cause;
    const message = `the server at ${api.url} does not have the calls for dead letters; a newer version is needed`;
    throw new OperatingError("not_supported", { message, cause });
  }
}

function describe(letter: DeadLetter): string {
  const { id, stage, conversation_id, sequence_number, reason, tries, parked_at, replayed_at } = letter;
  const place = conversation_id === null ? "" : `  ${conversation_id} #${sequence_number}`;
  const again = replayed_at === null ? "" : `  replayed ${replayed_at}`;
  return `${id}  ${parked_at}  ${stage}${place}  ${visible(reason)} (after ${tries} tries)${again}`;
}
