// What the fault proxy knows of Kafka: where a request and its answer begin and end, and which belong together.
// https://kafka.apache.org/protocol: a length of 4 bytes; in a request then the API key (2), its version (2) and the
// correlation id (4), in an answer the correlation id.

import type { Splitter } from "./fault-proxy.ts";

const apiNames: Record<number, string> = {
  0: "produce",
  1: "fetch",
  3: "metadata",
  8: "offset_commit",
  9: "offset_fetch",
  10: "find_coordinator",
  11: "join_group",
  12: "heartbeat",
  14: "sync_group",
  22: "init_producer_id",
};

/** Units of one connection are named by their API, the answers as the requests that they answer. */
export function kafkaProtocol(): Splitter {
  const asked = new Map<number, string>();
  const requests = kafkaFrames();
  const answers = kafkaFrames();
  return {
    request: (chunk) =>
      requests(chunk).map((bytes) => {
        const name = apiNames[bytes.readInt16BE(4)] ?? "other";
        asked.set(bytes.readInt32BE(8), name);
        return { name, bytes };
      }),
    answer: (chunk) =>
      answers(chunk).map((bytes) => {
        const correlationId = bytes.readInt32BE(4);
        const name = asked.get(correlationId) ?? "other";
        asked.delete(correlationId);
        return { name, bytes };
      }),
  };
}

/** Cuts bytes into requests or answers, each with its length before it. */
export function kafkaFrames(): (chunk: Buffer) => Buffer[] {
  let rest = Buffer.alloc(0);
  return (chunk) => {
    rest = Buffer.concat([rest, chunk]);
    const complete: Buffer[] = [];
    while (rest.length >= 4 && rest.length >= 4 + rest.readInt32BE(0)) {
      const end = 4 + rest.readInt32BE(0);
      complete.push(rest.subarray(0, end));
      rest = rest.subarray(end);
    }
    return complete;
  };
}
