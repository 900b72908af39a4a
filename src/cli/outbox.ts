// What is stored and waits for Kafka, and which instance publishes it.
import { apiOptions, openApi } from "./api.ts";
import { defineCommand, jsonOption } from "./command.ts";
import { paint, print } from "./output.ts";

interface OutboxState {
  pending_rows: number;
  oldest_row_age_seconds: number;
  shards: { shard: number; pending_rows: number; owner: string | null; epoch: number }[];
}

export const outbox = defineCommand({
  summary: "Show what waits for Kafka, by shard and owner",
  options: { ...apiOptions, ...jsonOption },
  details:
    "The client needs the scope admin. An owner is the instance that publishes a shard; - means nobody now.",
  examples: ["outbox", "outbox --json | jq .pending_rows"],
  async run({ values }) {
    const state = await openApi(values.url).asClient().call<OutboxState>("GET", "/v1/admin/outbox");
    if (values.json) return print(JSON.stringify(state));
    const age = state.oldest_row_age_seconds.toFixed(1);
    print(state.pending_rows === 0 ? "nothing waits" : `${state.pending_rows} wait, the oldest for ${age} s`);
    print(paint("dim", "shard  waiting  epoch  owner"));
    for (const { shard, pending_rows, epoch, owner } of state.shards) {
      print(`${cell(shard, 5)}  ${cell(pending_rows, 7)}  ${cell(epoch, 5)}  ${owner ?? "-"}`);
    }
  },
});

function cell(value: number, width: number): string {
  return String(value).padStart(width);
}
