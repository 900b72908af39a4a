// What the tests of live delivery stand on: a database with conversations, hubs as several instances have them, and
// sinks and sockets that note what they get.
import { type Hub, openHub } from "../../src/deliver/hub.ts";
import { type LiveEvent, liveEvent } from "../../src/deliver/live.ts";
import type { Sink } from "../../src/deliver/room.ts";
import type { EventRow } from "../../src/model/event.ts";
import { openLog } from "../../src/platform/log.ts";
import { conversationKey, partitionOf } from "../../src/platform/murmur2.ts";
import type { Postgres } from "../../src/platform/postgres.ts";
import { openRedis, type Redis } from "../../src/platform/redis.ts";
import { connect, makeDatabase, type TestDatabase } from "../support/database.ts";
import { until } from "../support/until.ts";

export const shards = 8;
export const log = openLog("test", "silent");

/** A hub as an instance has it, with its own connections to Redis. */
export interface TestHub extends AsyncDisposable {
  hub: Hub;
  redis: Redis;
}

/** A database, and what happens in it. */
export class Stand implements AsyncDisposable {
  readonly postgres: Postgres;
  /** Of all keys and channels of this stand. */
  readonly prefix: string;
  readonly #database: TestDatabase;

  constructor(database: TestDatabase) {
    this.#database = database;
    this.postgres = connect(database.url, 6);
    this.prefix = `${database.url.slice(-16)}:`;
  }

  get databaseUrl(): string {
    return this.#database.url;
  }

  static async open(): Promise<Stand> {
    return new Stand(await makeDatabase());
  }

  /** A group; its first member owns it. */
  async makeGroup(owner: string, ...members: string[]): Promise<string> {
    const id = crypto.randomUUID();
    const shard = partitionOf(conversationKey(id), shards);
    await this.postgres.query(
      "select * from create_conversation($1, 'group', $2, $3, $4, '{}', null, null)",
      [id, shard, owner, members],
    );
    return id;
  }

  /** Commits messages, which are not published yet. */
  async commit(conversationId: string, count = 1, text = "hello"): Promise<LiveEvent[]> {
    const rows = await this.postgres.query<EventRow>(
      `select stored.* from generate_series(1, $2) i, append_event($1, 'message.created', gen_random_uuid(),
         gen_random_uuid(), 'ann', json_build_object('type', 'text', 'text', $3::text || i)::text, null, '') stored`,
      [conversationId, count, text],
    );
    return rows.map(liveEvent);
  }

  /** Removes a member; answers the event, not published yet. */
  async remove(conversationId: string, owner: string, user: string): Promise<LiveEvent> {
    const [row] = await this.postgres.query<EventRow>(
      "select (stored).* from remove_member($1, $2, $3, gen_random_uuid(), '')",
      [conversationId, owner, user],
    );
    if (row === undefined) throw new Error("nobody was removed");
    return liveEvent(row);
  }

  /** A hub; resolves when it hears the others, or at once while Redis is away. */
  async openHub(redisUrl: string, options: { pollIntervalMs?: number; away?: true } = {}): Promise<TestHub> {
    const redis = openRedis({ url: redisUrl, prefix: this.prefix, log });
    const hub = openHub({
      postgres: this.postgres,
      redis,
      log,
      instanceId: crypto.randomUUID(),
      shards,
      pollIntervalMs: options.pollIntervalMs ?? 500,
    });
    if (options.away === undefined) await until(() => redis.state() === "up", "Redis is up");
    return {
      hub,
      redis,
      async [Symbol.asyncDispose]() {
        await hub.close();
        await redis.close();
      },
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.postgres.close();
    await this.#database.drop();
  }
}

/** A sink that notes what it gets, and lets a test wait for it. */
export class RecordingSink implements Sink {
  readonly numbers: number[] = [];
  readonly signals: string[] = [];
  isRemoved = false;

  subscribed(): void {}
  send({ sequence_number }: LiveEvent): "sent" {
    this.numbers.push(sequence_number);
    return "sent";
  }
  signal(frame: string): void {
    this.signals.push(frame);
  }
  drained(): Promise<void> {
    return Promise.resolve();
  }
  removed(): void {
    this.isRemoved = true;
  }
  interrupted(): void {}

  /** Resolves, with the milliseconds that it took, when the event with this number is there. */
  async until(sequenceNumber: number): Promise<number> {
    const startedAt = performance.now();
    await until(() => (this.numbers.at(-1) ?? 0) >= sequenceNumber, `event ${sequenceNumber} is there`);
    return performance.now() - startedAt;
  }
}

/** The numbers after one, up to another. */
export function range(after: number, last: number): number[] {
  return Array.from({ length: Math.max(0, last - after) }, (_, index) => after + 1 + index);
}
