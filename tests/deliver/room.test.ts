// The room alone: every order in which events can arrive, be lost or doubled, and every moment of a join.
import { describe, expect, test } from "bun:test";
import * as fc from "fast-check";
import type { LiveEvent } from "../../src/deliver/live.ts";
import { Room, type Sink, type Subscriber } from "../../src/deliver/room.ts";

const conversationId = "00000000-0000-4000-8000-000000000001";

function event(sequenceNumber: number, removedUserId: string | null = null): LiveEvent {
  return {
    conversation_id: conversationId,
    sequence_number: sequenceNumber,
    event: removedUserId === null ? "message.created" : "member.removed",
    removed_user_id: removedUserId,
    json: `{"sequence_number":${sequenceNumber}}`,
  };
}

/** A sink that notes what it gets. */
class Recorder implements Sink {
  readonly numbers: number[] = [];
  readonly ends: string[] = [];
  subscribedAt: number | undefined;
  isFull: () => boolean = () => false;
  waitDrained: () => Promise<void> = () => Promise.resolve();

  subscribed(lastSequenceNumber: number): void {
    expect(this.numbers).toEqual([]);
    this.subscribedAt = lastSequenceNumber;
  }
  send({ sequence_number }: LiveEvent): "sent" | "full" {
    expect(this.subscribedAt).toBeDefined();
    expect(this.ends).toEqual([]);
    this.numbers.push(sequence_number);
    return this.isFull() ? "full" : "sent";
  }
  drained(): Promise<void> {
    return this.waitDrained();
  }
  removed(): void {
    this.ends.push("removed");
  }
  interrupted(): void {
    this.ends.push("interrupted");
  }
}

function subscriberOf(sink: Sink, verifiedAt: number, after = verifiedAt, userId = "ann"): Subscriber {
  return { userId, sink, verifiedAt, position: after };
}

function range(after: number, last: number): number[] {
  return Array.from({ length: Math.max(0, last - after) }, (_, index) => after + 1 + index);
}

const never = { readAfter: () => new Promise<never>(() => {}), wait: () => new Promise<never>(() => {}) };

describe("a room", () => {
  test("delivers in order at once, and drops what it had", () => {
    const room = new Room(never);
    const sink = new Recorder();
    room.open(4);
    room.join(subscriberOf(sink, 4));
    for (const number of [5, 5, 3, 6, 4, 7]) room.offer(event(number));
    expect(sink.numbers).toEqual([5, 6, 7]);
  });

  test("holds back what came out of turn until the missing one is there", () => {
    const room = new Room(never);
    const sink = new Recorder();
    room.open(0);
    room.join(subscriberOf(sink, 0));
    for (const number of [3, 2]) room.offer(event(number));
    expect(sink.numbers).toEqual([]);
    room.offer(event(1));
    expect(sink.numbers).toEqual([1, 2, 3]);
  });

  test("holds back what is committed while it opens", () => {
    const room = new Room(never);
    const sink = new Recorder();
    for (const number of [4, 6, 5]) room.offer(event(number));
    room.open(4);
    room.join(subscriberOf(sink, 4));
    expect(sink.numbers).toEqual([5, 6]);
    room.offer(event(7));
    expect(sink.numbers).toEqual([5, 6, 7]);
  });

  test("reads a gap from the store when what is missing never comes", async () => {
    const stored = range(0, 600).map((number) => event(number));
    const room = new Room({
      readAfter: async (after) => stored.slice(after, after + 100),
      wait: async () => {},
    });
    const sink = new Recorder();
    room.open(0);
    room.join(subscriberOf(sink, 0));
    for (const number of range(100, 600)) room.offer(event(number));
    await Bun.sleep(0);
    expect(sink.numbers).toEqual(range(0, 600));
  });

  test("tells a removed member of the removal and nothing after, and the others everything", () => {
    const room = new Room(never);
    const [ann, bob] = [new Recorder(), new Recorder()];
    room.open(1);
    room.join(subscriberOf(ann, 1, 1, "ann"));
    room.join(subscriberOf(bob, 1, 1, "bob"));
    for (const next of [event(4), event(3, "ann"), event(2)]) room.offer(next);
    expect(ann).toMatchObject({ numbers: [2, 3], ends: ["removed"] });
    expect(bob).toMatchObject({ numbers: [2, 3, 4], ends: [] });
  });

  test("does not cut off at a removal from before the membership was checked", async () => {
    const stored = [event(1, "ann"), event(2), event(3)];
    const room = new Room({ readAfter: async (after) => stored.slice(after), wait: async () => {} });
    const sink = new Recorder();
    room.open(3);
    room.join(subscriberOf(sink, 3, 0));
    await Bun.sleep(0);
    expect(sink).toMatchObject({ numbers: [1, 2, 3], ends: [] });
  });

  test("gives a subscriber up when its history cannot be read for long", async () => {
    const room = new Room({ readAfter: () => Promise.reject(new Error("away")), wait: async () => {} });
    const sink = new Recorder();
    room.open(3);
    room.join(subscriberOf(sink, 3, 0));
    await Bun.sleep(0);
    expect(sink).toMatchObject({ numbers: [], ends: ["interrupted"] });
    expect(room.size).toBe(0);
  });

  test("passes a temporary state to everybody but its origin", () => {
    const room = new Room(never);
    const frames: string[] = [];
    const [origin, other] = [new Recorder(), new Recorder()];
    const noting = Object.assign(other, { signal: (frame: string) => void frames.push(`other ${frame}`) });
    const silent = Object.assign(origin, { signal: (frame: string) => void frames.push(`origin ${frame}`) });
    room.open(0);
    for (const sink of [noting, silent]) room.join(subscriberOf(sink, 0));
    room.signal("typing", silent);
    expect(frames).toEqual(["other typing"]);
  });
});

type Step =
  | { kind: "commit"; change: "none" | "add" | "remove"; user: string }
  | { kind: "hear"; back: number }
  | { kind: "announce" }
  | { kind: "join"; user: string; back: number | null }
  | { kind: "leave"; pick: number }
  | { kind: "let"; turns: number };

const user = fc.constantFrom("ann", "bob");
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    arbitrary: fc.record({
      kind: fc.constant("commit" as const),
      change: fc.constantFrom(
        "none" as const,
        "none" as const,
        "none" as const,
        "add" as const,
        "remove" as const,
      ),
      user,
    }),
    weight: 5,
  },
  { arbitrary: fc.record({ kind: fc.constant("hear" as const), back: fc.nat(6) }), weight: 6 },
  { arbitrary: fc.record({ kind: fc.constant("announce" as const) }), weight: 1 },
  {
    arbitrary: fc.record({ kind: fc.constant("join" as const), user, back: fc.option(fc.nat(12)) }),
    weight: 3,
  },
  { arbitrary: fc.record({ kind: fc.constant("leave" as const), pick: fc.nat(5) }), weight: 1 },
  { arbitrary: fc.record({ kind: fc.constant("let" as const), turns: fc.nat(4) }), weight: 6 },
);

interface Joined {
  sink: Recorder;
  subscriber: Subscriber;
  after: number;
}

/** A conversation as Postgres has it, and a room before it whose reads and waits end in any order. */
class World {
  readonly log: LiveEvent[] = [];
  readonly members = new Set(["ann", "bob"]);
  readonly joined: Joined[] = [];
  readonly #scheduler: fc.Scheduler;
  readonly #chance: () => number;
  readonly room: Room;
  isCalm = false;
  /** The highest number that the room was told of. */
  told = 0;

  constructor(scheduler: fc.Scheduler, chance: () => number) {
    this.#scheduler = scheduler;
    this.#chance = chance;
    this.room = new Room({
      readAfter: async (after) => {
        await this.#turn("read");
        if (!this.isCalm && this.#chance() < 0.2) throw new Error("away");
        const page = this.log.slice(after, after + 3);
        await this.#turn("answer");
        return page;
      },
      wait: () => this.#turn("wait"),
    });
  }

  async #turn(label: string): Promise<void> {
    await this.#scheduler.schedule(Promise.resolve(), label);
  }

  take(next: Step): void {
    switch (next.kind) {
      case "commit": {
        const isRemoval = next.change === "remove" && this.members.delete(next.user);
        if (next.change === "add") this.members.add(next.user);
        this.log.push(event(this.log.length + 1, isRemoval ? next.user : null));
        break;
      }
      case "hear": {
        const heard = this.log.at(-1 - next.back);
        if (heard === undefined) break;
        this.#tell(heard.sequence_number);
        this.room.offer(heard);
        break;
      }
      case "announce":
        this.#tell(this.log.length);
        this.room.announce(this.log.length);
        break;
      case "join":
        void this.#join(next.user, next.back);
        break;
      case "leave": {
        const leaving = this.joined[next.pick];
        if (leaving !== undefined && leaving.sink.ends.length === 0) {
          this.room.leave(leaving.subscriber);
          leaving.sink.ends.push("left");
        }
        break;
      }
      case "let":
        break;
      default:
        next satisfies never;
    }
  }

  #tell(number: number): void {
    this.told = Math.max(this.told, number);
  }

  // As the hub does it: ask where the conversation stands, and join when the answer is there.
  async #join(userId: string, back: number | null): Promise<void> {
    await this.#turn("ask");
    const last = this.log.length;
    const isMember = this.members.has(userId);
    await this.#turn("standing");
    if (!isMember) return;
    const after = back === null ? last : Math.max(0, last - back);
    const sink = new Recorder();
    sink.isFull = () => this.#chance() < 0.2;
    sink.waitDrained = () => this.#turn("drained");
    const subscriber = subscriberOf(sink, last, after, userId);
    this.joined.push({ sink, subscriber, after });
    this.#tell(last);
    this.room.open(last);
    this.room.join(subscriber);
  }

  /** Everybody who stayed has everything up to `last`, or further; who left has a beginning of it. */
  check(last: number): void {
    for (const joined of this.joined) {
      const got = joined.sink.numbers;
      const { numbers, ends } = this.expectedOf(joined, Math.max(last, got.at(-1) ?? 0));
      if (joined.sink.ends.includes("left"))
        expect(got).toEqual(range(joined.after, joined.after + got.length));
      else expect({ numbers: got, ends: joined.sink.ends }).toEqual({ numbers, ends });
    }
  }

  /** What a subscriber must have got when everything up to `last` is through. */
  expectedOf({ subscriber, after }: Joined, last: number): { numbers: number[]; ends: string[] } {
    const removal = this.log
      .slice(0, last)
      .find(
        ({ sequence_number, removed_user_id }) =>
          removed_user_id === subscriber.userId && sequence_number > subscriber.verifiedAt,
      );
    return {
      numbers: range(after, removal?.sequence_number ?? last),
      ends: removal === undefined ? [] : ["removed"],
    };
  }
}

test("gives every subscriber exactly what follows its position, whatever is lost, doubled, late or fails", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.scheduler(),
      fc.array(step, { minLength: 10, maxLength: 120, size: "max" }),
      fc.infiniteStream(fc.double({ min: 0, max: 1, noNaN: true })),
      async (scheduler, steps, chances) => {
        const world = new World(scheduler, () => chances.next().value ?? 1);
        for (const next of steps) {
          world.take(next);
          for (
            let turns = next.kind === "let" ? next.turns : 0;
            turns > 0 && scheduler.count() > 0;
            turns -= 1
          ) {
            await scheduler.waitOne();
          }
        }
        // Whatever the room was told of gets through by itself; the poll finds what it never heard of.
        world.isCalm = true;
        await scheduler.waitIdle();
        world.check(world.told);
        world.room.announce(world.log.length);
        await scheduler.waitIdle();
        world.check(world.log.length);
      },
    ),
    { numRuns: 2000 },
  );
});
