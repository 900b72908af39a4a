// A WebSocket for tests: frames are kept in the order of their arrival, and waited for by what they are.
import type { Answer } from "./server.ts";

type Frame = Answer["body"];

const deadlineMs = 5000;

/** An open (or refused) socket. */
export interface TestSocket extends Disposable {
  /** Everything that came. */
  readonly frames: readonly Frame[];
  send(frame: unknown): void;
  /** The first frame, from the next unread one on, that has all of these members; those before it are skipped. */
  next(wanted: Record<string, unknown>): Promise<Frame>;
  /** Sends a frame with a `ref` and answers the frame that carries it. */
  ask(frame: Record<string, unknown>): Promise<Frame>;
  /** The code of its close; a refused upgrade has 1002 or 1006. */
  closed(): Promise<number>;
}

/** Opens a socket at a node; with `?access_token=` unless told to use the header. */
export function openSocket(url: string, token: string, way: "query" | "header" = "query"): TestSocket {
  const address = `${url.replace(/^http/, "ws")}/v1/stream`;
  const raw =
    way === "query"
      ? new WebSocket(`${address}?access_token=${encodeURIComponent(token)}`)
      : new WebSocket(address, { headers: { authorization: `Bearer ${token}` } });
  const frames: Frame[] = [];
  const waiting = new Set<() => void>();
  let read = 0;
  let closeCode: number | undefined;
  let refs = 0;
  const wake = () => {
    for (const look of waiting) look();
  };
  raw.addEventListener("message", ({ data }) => {
    frames.push(JSON.parse(String(data)));
    wake();
  });
  raw.addEventListener("close", ({ code }) => {
    closeCode = code;
    wake();
  });

  const wait = <Found>(what: string, find: () => Found | undefined): Promise<Found> =>
    new Promise((resolve, reject) => {
      const look = () => {
        const found = find();
        if (found !== undefined) settle(() => resolve(found));
      };
      const settle = (finish: () => void) => {
        waiting.delete(look);
        clearTimeout(timer);
        finish();
      };
      const giveUp = () =>
        reject(new Error(`no ${what}; closed: ${closeCode}; had ${JSON.stringify(frames.slice(-5))}`));
      const timer = setTimeout(() => settle(giveUp), deadlineMs);
      waiting.add(look);
      look();
    });

  const find = (wanted: Record<string, unknown>) => {
    const index = frames.findIndex(
      (frame, at) => at >= read && Object.entries(wanted).every(([name, value]) => frame[name] === value),
    );
    if (index === -1) return undefined;
    read = index + 1;
    return frames[index];
  };
  const next = (wanted: Record<string, unknown>) => wait(JSON.stringify(wanted), () => find(wanted));

  return {
    frames,
    send: (frame) => raw.send(typeof frame === "string" ? frame : JSON.stringify(frame)),
    next,
    ask(frame) {
      refs += 1;
      const ref = frame["ref"] ?? `ref ${refs}`;
      raw.send(JSON.stringify({ ...frame, ref }));
      return next({ ref });
    },
    closed: () => wait("close", () => closeCode),
    [Symbol.dispose]: () => raw.close(),
  };
}
