// Puts one conversation's events in order for its subscribers on this instance. Events arrive from local commits,
// from other instances and from Postgres, in any order, late, doubled or not at all; each subscriber gets exactly
// those after its position, in the order of sequence_number, without a gap. No I/O here: reading is injected.
//
// A room:        opening (head unknown, events are held) -> open -> closed
// A subscriber:  catching up (reads history from its position to the head) -> live -> gone
import type { LiveEvent } from "./live.ts";

/** Where a subscriber's events go: a socket's subscription or an event stream. */
export interface Sink {
  /** Called once, before any event. */
  subscribed(lastSequenceNumber: number): void;
  /** Always takes the event, or ends its own connection; `full` asks a reader of history to wait for `drained`. */
  send(event: LiveEvent): "sent" | "full";
  /** A temporary state (typing, receipt, presence) as JSON text; event streams have none. */
  signal?(frame: string): void;
  /** Resolves when there is room again, or the connection has ended. */
  drained(): Promise<void>;
  /** Its user is no longer a member: the event that says so was the last one. */
  removed(): void;
  /** History could not be read for long: the client is to come again and resume by number. */
  interrupted(): void;
}

/** One sink in a room, and how far it has got. */
export interface Subscriber {
  readonly userId: string;
  readonly sink: Sink;
  /** The conversation's last number when membership was checked: only a later removal counts. */
  readonly verifiedAt: number;
  /** The last number that it has, or does not want. */
  position: number;
}

/** What a room needs from outside. */
export interface RoomEnvironment {
  /** The next events after a number, in order, at most a page; rejects when they cannot be read now. */
  readAfter(sequenceNumber: number): Promise<LiveEvent[]>;
  wait(milliseconds: number): Promise<void>;
}

/** Events held back for one that is missing; beyond that they are dropped, since the gap is read anyway. */
const heldEventsMax = 256;
/** Two commits of one instance may be answered out of turn: what is missing mostly comes by itself. */
const gapDelayMs = 5;
const readRetryMs = 200;
/** Two minutes: Postgres may be away for a while, and whoever waits keeps its place. */
const readTriesMax = 600;

/** One conversation's order for its subscribers here; see above. */
export class Room {
  readonly #environment: RoomEnvironment;
  readonly #subscribers = new Set<Subscriber>();
  readonly #live = new Set<Subscriber>();
  readonly #held = new Map<number, LiveEvent>();
  /** Up to here events were fanned out to live subscribers; null while opening. */
  #head: number | null = null;
  /** The highest number that is known to exist. */
  #newest = 0;
  #isReadingGap = false;
  #isClosed = false;

  constructor(environment: RoomEnvironment) {
    this.#environment = environment;
  }

  /** How many subscribers are in the room. */
  get size(): number {
    return this.#subscribers.size;
  }

  /** Tells where the conversation stands. The first call opens the room; later ones are announcements. */
  open(lastSequenceNumber: number): void {
    if (this.#head === null) {
      this.#head = lastSequenceNumber;
      for (const number of this.#held.keys()) if (number <= lastSequenceNumber) this.#held.delete(number);
    }
    this.announce(lastSequenceNumber);
  }

  /** An event from anywhere, in any order, any number of times. */
  offer(event: LiveEvent): void {
    const number = event.sequence_number;
    if (this.#head !== null && number <= this.#head) return;
    if (number === (this.#head ?? Number.NaN) + 1) {
      this.#fanOut(event);
      this.#drainHeld();
      return;
    }
    if (this.#held.size < heldEventsMax) this.#held.set(number, event);
    this.announce(number);
  }

  /** The conversation has events up to this number; those that are missing are read. */
  announce(sequenceNumber: number): void {
    this.#newest = Math.max(this.#newest, sequenceNumber);
    if (this.#head !== null && this.#newest > this.#head && !this.#isReadingGap) void this.#readGap();
  }

  /** Adds a subscriber to an open room and brings it up to date; `subscribed` is called before this returns. */
  join(subscriber: Subscriber): void {
    this.#subscribers.add(subscriber);
    subscriber.sink.subscribed(subscriber.verifiedAt);
    if (subscriber.position >= (this.#head ?? 0)) this.#live.add(subscriber);
    else void this.#catchUp(subscriber);
    this.#drainHeld();
  }

  /** Takes a subscriber out: it gets nothing more. */
  leave(subscriber: Subscriber): void {
    this.#subscribers.delete(subscriber);
    this.#live.delete(subscriber);
  }

  /** Passes a temporary state to everybody but its origin. */
  signal(frame: string, except: Sink | undefined): void {
    for (const { sink } of this.#subscribers) if (sink !== except) sink.signal?.(frame);
  }

  /** Ends all reading; an empty room is thrown away. */
  close(): void {
    this.#isClosed = true;
  }

  #fanOut(event: LiveEvent): void {
    this.#head = event.sequence_number;
    this.#held.delete(event.sequence_number);
    for (const subscriber of this.#live) this.#deliver(subscriber, event);
  }

  #drainHeld(): void {
    while (this.#held.size > 0 && this.#head !== null) {
      const next = this.#held.get(this.#head + 1);
      if (next === undefined) return;
      this.#fanOut(next);
    }
  }

  #deliver(subscriber: Subscriber, event: LiveEvent): "sent" | "full" {
    if (event.sequence_number <= subscriber.position) return "sent";
    subscriber.position = event.sequence_number;
    const outcome = subscriber.sink.send(event);
    if (event.removed_user_id === subscriber.userId && event.sequence_number > subscriber.verifiedAt) {
      this.leave(subscriber);
      subscriber.sink.removed();
    }
    return outcome;
  }

  async #readGap(): Promise<void> {
    this.#isReadingGap = true;
    await this.#environment.wait(gapDelayMs);
    while (!this.#isClosed && this.#head !== null && this.#newest > this.#head) {
      const wanted = this.#newest;
      const events = await this.#environment.readAfter(this.#head).catch(() => null);
      if (events === null) await this.#environment.wait(readRetryMs);
      else for (const event of events) this.offer(event);
      // Nothing there, and nothing announced meanwhile: that number is not stored. The next one tells again.
      if (events?.length === 0 && this.#newest === wanted) this.#newest = this.#head;
    }
    this.#isReadingGap = false;
  }

  // Joins the live ones in the same tick in which it reaches the head, so that nothing falls between.
  async #catchUp(subscriber: Subscriber): Promise<void> {
    let triesLeft = readTriesMax;
    while (this.#subscribers.has(subscriber)) {
      if (subscriber.position >= (this.#head ?? 0)) {
        this.#live.add(subscriber);
        return;
      }
      const events = await this.#environment.readAfter(subscriber.position).catch(() => []);
      if (events.length > 0) {
        triesLeft = readTriesMax;
        await this.#deliverHistory(subscriber, events);
      } else if (--triesLeft > 0) {
        await this.#environment.wait(readRetryMs);
      } else {
        this.leave(subscriber);
        subscriber.sink.interrupted();
      }
    }
  }

  async #deliverHistory(subscriber: Subscriber, events: readonly LiveEvent[]): Promise<void> {
    for (const event of events) {
      if (!this.#subscribers.has(subscriber)) return;
      const outcome = this.#deliver(subscriber, event);
      this.offer(event);
      if (outcome === "full") await subscriber.sink.drained();
    }
  }
}
