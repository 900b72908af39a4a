// What a node still holds for sockets that are gone, as Redis shows it: the channels that it listens to (one while it
// has a room there) and presence.
import { Redis } from "ioredis";
import type { Config } from "../../src/config.ts";
import { until } from "../support/until.ts";

/** Resolves when a node has neither rooms nor presence; rejects when some stay. */
export async function untilNothingIsHeld(config: Pick<Config, "REDIS_URL" | "REDIS_PREFIX">): Promise<void> {
  const redis = new Redis(config.REDIS_URL);
  let left: string[] = [];
  try {
    await until(
      async () => {
        const channels = (await redis.pubsub("CHANNELS", `${config.REDIS_PREFIX}live:[0-9]*`)) as string[];
        const presence = await redis.keys(`${config.REDIS_PREFIX}presence:*`);
        left = [...channels, ...presence];
        return left.length === 0;
      },
      "no room and no presence is left",
      20_000,
    );
  } catch (error) {
    throw new Error(`left: ${left.join(", ")}`, { cause: error });
  } finally {
    redis.disconnect();
  }
}
