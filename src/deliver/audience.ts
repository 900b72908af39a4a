// Whether any other instance listens. One that is alone publishes no events: nobody would take them, and writing
// them to Redis costs (docs/ingest.md). Redis tells how many listen; a newcomer says so itself, at once.
import type { Redis } from "../platform/redis.ts";
import { allChannel } from "./bus.ts";

/** Who else is there, as far as is known. */
export interface Audience {
  /** Only when Redis said so lately, and nobody has come since. */
  isAlone(): boolean;
  /** Another instance has said that it listens from now on. */
  hasCome(): void;
  close(): void;
}

const lookIntervalMs = 250;

/** Looks until it is closed. */
export function openAudience(redis: Redis): Audience {
  let isAlone = false;
  let arrivals = 0;

  const look = async () => {
    const arrivalsBefore = arrivals;
    // Oneself is one of them. Without an answer others are taken to be there.
    const listeners = await redis.countListeners(allChannel).catch(() => Number.POSITIVE_INFINITY);
    isAlone = listeners <= 1 && arrivals === arrivalsBefore;
  };
  const timer = setInterval(() => void look(), lookIntervalMs);

  return {
    isAlone: () => isAlone,
    hasCome() {
      arrivals += 1;
      isAlone = false;
    },
    close: () => clearInterval(timer),
  };
}
