// An event stream as its readers have it: text in pieces in, events out, each with what is wrong with its frame.

/** What is looked at here; an event has more. */
export interface StreamedEvent {
  event: string;
  sequence_number: number;
}

/** Reads until the stream ends or `over` aborts. `fault`: the `id` or `event` field is not that of the data. */
export async function readEventStream(
  body: ReadableStream<Uint8Array>,
  over: AbortSignal,
  take: (event: StreamedEvent, fault: string | undefined) => void,
): Promise<void> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of body) {
    if (over.aborted) return;
    text += decoder.decode(chunk, { stream: true });
    const blocks = text.split("\n\n");
    text = blocks.pop() ?? "";
    for (const block of blocks) {
      const fields = new Map(block.split("\n").map((line) => line.split(/: (.*)/s, 2) as [string, string]));
      const data = fields.get("data");
      if (data === undefined) continue;
      const event = JSON.parse(data) as StreamedEvent;
      const isRight =
        fields.get("id") === String(event.sequence_number) && fields.get("event") === event.event;
      take(event, isRight ? undefined : `id or event is not that of its data: ${block.slice(0, 200)}`);
    }
  }
}
