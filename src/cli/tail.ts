// Shows what happens in a user's conversations, as it happens.
import { apiOptions, openApi } from "./api.ts";
import { defineCommand, jsonOption, UsageError, wholeNumber } from "./command.ts";
import { followEvents, type StreamEvent } from "./follow.ts";
import { paint, print, visible } from "./output.ts";

export const tail = defineCommand({
  summary: "Show a user's events as they happen",
  options: {
    as: { type: "string", value: "USER", help: "Whose events." },
    conversation: { type: "string", value: "ID", help: "One conversation; default: all of the user's." },
    after: {
      type: "string",
      value: "N",
      help: "With --conversation: begin after this number; default: from now on.",
    },
    count: { type: "string", value: "N", help: "End after so many events." },
    ...apiOptions,
    ...jsonOption,
  },
  details:
    "Connects again whenever the connection breaks, and takes up where it was: no event is missed or shown twice.\n" +
    "With --json each line is one event. Control characters in other people's text are shown, not obeyed.",
  examples: [
    "tail --as bob",
    "tail --as bob --conversation 0199… --after 0",
    "tail --as bob --json --count 1 | jq -r .payload.text",
  ],
  async run({ values }) {
    if (!values.as) throw new UsageError("--as is missing: whose events?");
    const after = wholeNumber("--after", values.after, Number.MAX_SAFE_INTEGER);
    const count = wholeNumber("--count", values.count, Number.MAX_SAFE_INTEGER);
    if (after !== undefined && values.conversation === undefined)
      throw new UsageError("--after needs --conversation");
    if (count === 0) return;

    const enough = new AbortController();
    let shown = 0;
    await followEvents({
      api: openApi(values.url),
      userId: values.as,
      conversation: values.conversation?.toLowerCase(),
      after,
      signal: enough.signal,
      onEvent(event) {
        print(values.json ? JSON.stringify(event) : describe(event, values.conversation === undefined));
        shown += 1;
        if (shown === count) enough.abort();
      },
    });
  },
});

function describe(event: StreamEvent, withConversation: boolean): string {
  const time = paint("dim", new Date(event.created_at).toTimeString().slice(0, 8));
  const place = withConversation ? ` ${paint("dim", event.conversation_id)}` : "";
  return `${time}${place} #${event.sequence_number} ${sentence(event)}`;
}

function sentence(event: StreamEvent): string {
  const sender = paint("bold", visible(event.sender_id));
  switch (event.event) {
    case "message.created":
      return `${sender}: ${content(event)}`;
    case "message.edited":
      return `${sender} edited #${event.target_sequence_number}: ${content(event)}`;
    case "message.deleted":
      return `${sender} deleted #${event.target_sequence_number}`;
    case "member.added":
      return `${sender} added ${visible(event.payload?.user_id ?? "")}`;
    case "member.removed":
      return `${sender} removed ${visible(event.payload?.user_id ?? "")}`;
    default:
      return event.event satisfies never;
  }
}

function content({ payload }: StreamEvent): string {
  return visible(payload?.text ?? JSON.stringify(payload?.data ?? null));
}
