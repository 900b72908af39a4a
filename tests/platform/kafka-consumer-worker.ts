// A consumer on a thread of its own, which a test can end whatever the consumer does. It keeps its first batch in
// hand until it is told to let go of it.
import { type KafkaSettings, runConsumer } from "../../src/platform/kafka.ts";

declare const self: Worker;

/** What comes in, in this order. */
export type Command = { open: KafkaSettings; topic: string } | "close" | "let go";
/** What goes out, in this order. */
export type Report = "holds a batch" | "is closing" | "is closed";

const letGo = Promise.withResolvers<void>();
let consumer: ReturnType<typeof runConsumer> | undefined;

self.addEventListener("message", ({ data }: MessageEvent<Command>) => {
  if (data === "let go") letGo.resolve();
  else if (data === "close") void close();
  else consumer = open(data);
});

function open(command: Exclude<Command, string>) {
  return runConsumer(command.open, {
    groupId: `test-${crypto.randomUUID()}`,
    topics: [command.topic],
    fromBeginning: true,
    async onBatch({ records }) {
      report("holds a batch");
      await letGo.promise;
      return records.length;
    },
  });
}

async function close() {
  const closed = (await consumer)?.close();
  report("is closing");
  await closed;
  report("is closed");
}

function report(what: Report) {
  self.postMessage(what);
}
