// Requests to one broker of the test's choice, for what kafkajs asks of any broker, or not at all.
// https://kafka.apache.org/protocol

import { connect } from "node:net";
import { kafkaFrames } from "./kafka-protocol.ts";

interface Api {
  key: number;
  version: number;
  /** In its newer form the header ends with a list of further fields, of which there are none. */
  headerEnd?: Buffer;
}

const noFields = Buffer.from([0]);
const metadataApi: Api = { key: 3, version: 1 };
const electLeadersApi: Api = { key: 43, version: 0 };
const reassignApi: Api = { key: 45, version: 0, headerEnd: noFields };
const deadlineMs = 5_000;

/** The leader of each partition, as the broker at `port` knows them; -1 for one without. */
export async function leadersKnownAt(port: number, topic: string): Promise<Map<number, number>> {
  const answer = reader(await ask(port, metadataApi, [array([string(topic)])]));
  answer.array(() => {
    answer.int32(); // id
    answer.string(); // host
    answer.int32(); // port
    answer.string(); // rack
  });
  answer.int32(); // controller
  const leaders = new Map<number, number>();
  answer.array(() => {
    answer.int16(); // error
    answer.string(); // name
    answer.int8(); // internal
    answer.array(() => {
      answer.int16(); // error
      const partition = answer.int32();
      leaders.set(partition, answer.int32());
      answer.array(answer.int32); // replicas
      answer.array(answer.int32); // in sync
    });
  });
  return leaders;
}

/** Asks that the first replica of each partition lead it. Whether that came about is not looked at. */
export async function electPreferredLeaders(
  port: number,
  topic: string,
  partitions: number[],
): Promise<void> {
  const chosen = Buffer.concat([string(topic), array(partitions.map(int32))]);
  await ask(port, electLeadersApi, [array([chosen]), int32(deadlineMs)]);
}

/** Asks that these replicas have the partition from now on. Whether that came about is not looked at. */
export async function reassign(
  port: number,
  topic: string,
  assignment: readonly { partition: number; replicas: number[] }[],
): Promise<void> {
  const partitions = assignment.map(({ partition, replicas }) =>
    Buffer.concat([int32(partition), shortArray(replicas.map(int32)), noFields]),
  );
  const chosen = Buffer.concat([shortString(topic), shortArray(partitions), noFields]);
  await ask(port, reassignApi, [int32(deadlineMs), shortArray([chosen]), noFields]);
}

/** What follows the correlation id. Rejects when the connection ends first, or nothing comes for 5 s. */
function ask(port: number, api: Api, body: Buffer[]): Promise<Buffer> {
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
  const correlationId = 1;
  const header = [
    int16(api.key),
    int16(api.version),
    int32(correlationId),
    string("test"),
    api.headerEnd ?? Buffer.alloc(0),
  ];
  const request = Buffer.concat([...header, ...body]);
  const frames = kafkaFrames();
  const socket = connect({ host: "127.0.0.1", port }, () => {
    socket.write(Buffer.concat([int32(request.length), request]));
  });
  socket.setTimeout(deadlineMs, () => socket.destroy(new Error(`no answer from port ${port}`)));
  socket.on("data", (chunk) => {
    const [answer] = frames(chunk);
    if (!answer) return;
    resolve(answer.subarray(8));
    socket.destroy();
  });
  socket.on("error", reject);
  socket.on("close", () => reject(new Error(`port ${port} closed the connection`)));
  return promise;
}

function int16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeInt16BE(value);
  return bytes;
}

function int32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value);
  return bytes;
}

function string(value: string): Buffer {
  return Buffer.concat([int16(Buffer.byteLength(value)), Buffer.from(value)]);
}

function array(items: Buffer[]): Buffer {
  return Buffer.concat([int32(items.length), ...items]);
}

// The newer form, for what is shorter than 127.
function shortString(value: string): Buffer {
  return Buffer.concat([Buffer.from([Buffer.byteLength(value) + 1]), Buffer.from(value)]);
}

function shortArray(items: Buffer[]): Buffer {
  return Buffer.concat([Buffer.from([items.length + 1]), ...items]);
}

function reader(bytes: Buffer) {
  let position = 0;
  const move = (length: number) => {
    position += length;
    return position - length;
  };
  const readInt32 = () => bytes.readInt32BE(move(4));
  return {
    int8: () => bytes.readInt8(move(1)),
    int16: () => bytes.readInt16BE(move(2)),
    int32: readInt32,
    /** Skips a string, which may be null. */
    string: () => void move(Math.max(0, bytes.readInt16BE(move(2)))),
    array(readItem: () => unknown) {
      for (let left = readInt32(); left > 0; left -= 1) readItem();
    },
  };
}
