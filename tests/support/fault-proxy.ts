// A TCP proxy on a port of its own: what comes in on either side goes out on the other, unless a test says otherwise.
// It knows no protocol; one that is given cuts the bytes into named units, such as the answer to one request.

import { connect, createServer, type Socket } from "node:net";

/** The least that a fault applies to: with a protocol a message, without one a chunk as it came, named `chunk`. */
export interface Unit {
  direction: "request" | "answer";
  name: string;
  bytes: Buffer;
  /** When it came to the proxy, by performance.now(). */
  arrivedAtMs: number;
}

/**
 * `drop` swallows the unit, `close` and `reset` (RST) end its connection instead of passing it on; bytes are passed
 * on in its place.
 */
export type Verdict = "pass" | "drop" | "close" | "reset" | Buffer;

/** Decides on each unit. While a promise is pending, the unit and all behind it in its direction are held back. */
export type Fault = (unit: Unit) => Verdict | Promise<Verdict>;

/** Cuts one connection's bytes into units; incomplete ones are kept until the rest comes. */
export interface Splitter {
  request(chunk: Buffer): { name: string; bytes: Buffer }[];
  answer(chunk: Buffer): { name: string; bytes: Buffer }[];
}

/** A running proxy. `target`, `fault` and `isRefusing` may be set at any time and apply from then on. */
export interface FaultProxy {
  readonly port: number;
  /** The port of the real server, on the loopback address. */
  target: number;
  fault: Fault;
  /** New connections are reset at once. */
  isRefusing: boolean;
  /** Ends all connections that are open now. */
  endConnections(how: "close" | "reset"): void;
  stop(): Promise<void>;
}

/** Of one direction of a connection; beyond it the proxy reads no more, so that the sender has to wait. */
const heldBytesMax = 1024 * 1024;

export const passAll: Fault = () => "pass";
export const dropAll: Fault = () => "drop";
export const dropAnswers: Fault = ({ direction }) => (direction === "answer" ? "drop" : "pass");

/** Each unit arrives later by so much; the order stays. */
export function delayBy(durationMs: number): Fault {
  return ({ arrivedAtMs }) => {
    const leftMs = arrivedAtMs + durationMs - performance.now();
    return leftMs <= 0 ? "pass" : Bun.sleep(leftMs).then(() => "pass");
  };
}

/** Nothing arrives until `release` is called; then all of it does, in order. */
export function holdAll(): { fault: Fault; release(): void } {
  const held = Promise.withResolvers<Verdict>();
  return { fault: () => held.promise, release: () => held.resolve("pass") };
}

/**
 * The verdict on the first unit of that kind, which is held back while it is a promise; `struck` resolves when the
 * unit has come. All others pass.
 */
export function once(direction: Unit["direction"], name: string, verdict: ReturnType<Fault>) {
  const struck = Promise.withResolvers<void>();
  let isOver = false;
  const fault: Fault = (unit) => {
    if (isOver || unit.direction !== direction || unit.name !== name) return "pass";
    isOver = true;
    struck.resolve();
    return verdict;
  };
  return { fault, struck: struck.promise };
}

/** Starts a proxy on a free port of the loopback address. It passes everything until it is given a fault. */
export async function startFaultProxy(options: { target?: number; protocol?: () => Splitter } = {}) {
  const connections = new Set<(how: "close" | "reset") => void>();
  const newSplitter = options.protocol ?? chunksAsTheyCome;

  const server = createServer((client) => {
    if (proxy.isRefusing) {
      client.resetAndDestroy();
      return;
    }
    const upstream = connect({ host: "127.0.0.1", port: proxy.target });
    const splitter = newSplitter();
    const end = (how: "close" | "reset") => {
      connections.delete(end);
      for (const socket of [client, upstream]) {
        if (how === "reset") socket.resetAndDestroy();
        else socket.destroy();
      }
    };
    connections.add(end);
    relay("request", client, upstream, splitter.request, end);
    relay("answer", upstream, client, splitter.answer, end);
  });

  /** One direction of one connection. */
  function relay(
    direction: Unit["direction"],
    from: Socket,
    to: Socket,
    split: Splitter["request"],
    end: (how: "close" | "reset") => void,
  ) {
    let passing = Promise.resolve();
    let heldBytes = 0;
    const hold = (bytes: Buffer) => {
      heldBytes += bytes.length;
      if (heldBytes > heldBytesMax) from.pause();
    };
    const letGo = (bytes: Buffer) => {
      heldBytes -= bytes.length;
      if (from.isPaused() && heldBytes <= heldBytesMax) from.resume();
    };
    const pass = async (unit: Unit) => {
      if (!connections.has(end)) return;
      const verdict = await proxy.fault(unit);
      letGo(unit.bytes);
      if (verdict === "close" || verdict === "reset") end(verdict);
      else if (verdict !== "drop") await write(to, verdict === "pass" ? unit.bytes : verdict);
    };
    from.on("data", (chunk) => {
      const arrivedAtMs = performance.now();
      for (const { name, bytes } of split(chunk)) {
        hold(bytes);
        passing = passing.then(() => pass({ direction, name, bytes, arrivedAtMs }));
      }
    });
    from.on("error", () => end("reset"));
    // What was sent before the end still arrives.
    from.on("close", () => void passing.then(() => end("close")));
  }

  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const proxy: FaultProxy = {
    port: (server.address() as { port: number }).port,
    target: options.target ?? 0,
    fault: passAll,
    isRefusing: false,
    endConnections(how) {
      for (const end of connections) end(how);
    },
    async stop() {
      const stopped = new Promise((resolve) => server.close(resolve));
      proxy.endConnections("reset");
      await stopped;
    },
  };
  return proxy;
}

/** Resolves when there is room for more, or nobody who would take it. */
function write(to: Socket, bytes: Buffer): Promise<void> | undefined {
  if (to.destroyed || to.write(bytes)) return undefined;
  return new Promise((resolve) => {
    const done = () => {
      to.off("drain", done).off("close", done);
      resolve();
    };
    to.on("drain", done).on("close", done);
  });
}

function chunksAsTheyCome(): Splitter {
  return { request: wholeChunk, answer: wholeChunk };
}

function wholeChunk(bytes: Buffer) {
  return [{ name: "chunk", bytes }];
}
