// Whoever waits for brokers comes in; what leaves is word that brokers which did not answer do so again. A request
// that was lost on its way, to a broker that was gone, is otherwise waited for until its own deadline, long after the
// broker is back. Nothing is asked of anybody while all goes well.

import { connect } from "node:net";

/** Looks after those who wait for the brokers of one cluster. */
export interface Returns {
  /** Calls `onReturn`, once, when a broker is back and this wait still lasts a moment later; until the end is told. */
  watch(onReturn: () => void): () => void;
}

interface Wait {
  sinceMs: number;
  onReturn: () => void;
}

const lookIntervalMs = 250;
/** Who waits for longer may wait for somebody who is gone. */
const doubtAfterMs = 500;
const answerMsMax = 500;
/** What a broker holds unanswered when it wakes is answered within this. */
const graceMs = 300;

/** Asks nobody until somebody waits. `brokers` are `host:port`. */
export function openReturns(brokers: readonly string[]): Returns {
  const waits = new Set<Wait>();
  const silent = new Set<string>();
  let isLooking = false;

  async function keepLooking() {
    isLooking = true;
    while (waits.size > 0) {
      await Bun.sleep(lookIntervalMs);
      const isInDoubt = waits.values().some(({ sinceMs }) => performance.now() - sinceMs > doubtAfterMs);
      if (isInDoubt) await Promise.all(brokers.map(look));
      else silent.clear();
    }
    silent.clear();
    isLooking = false;
  }

  async function look(broker: string) {
    if (!(await answers(broker))) silent.add(broker);
    else if (silent.delete(broker)) setTimeout(tell, graceMs, performance.now());
  }

  function tell(backAtMs: number) {
    for (const wait of waits) {
      if (wait.sinceMs > backAtMs) continue;
      waits.delete(wait);
      wait.onReturn();
    }
  }

  return {
    watch(onReturn) {
      const wait = { sinceMs: performance.now(), onReturn };
      waits.add(wait);
      if (!isLooking) void keepLooking();
      return () => waits.delete(wait);
    },
  };
}

/** ApiVersions, version 0, which needs no login (https://kafka.apache.org/protocol): length, key, version, id, no client id. */
const question = Buffer.from([0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff]);

function answers(broker: string): Promise<boolean> {
  const colon = broker.lastIndexOf(":");
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = connect({ host: broker.slice(0, colon), port: Number(broker.slice(colon + 1)) });
  const timer = setTimeout(() => resolve(false), answerMsMax);
  socket.once("connect", () => socket.write(question));
  socket.once("data", () => resolve(true));
  socket.on("error", () => resolve(false));
  socket.once("close", () => resolve(false));
  return promise.finally(() => {
    clearTimeout(timer);
    socket.destroy();
  });
}
