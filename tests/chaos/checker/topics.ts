// A topic, record by record as its partitions have them: first occurrences are all events in the order of their
// numbers, as they are stored, each conversation on the partition of its key.
import type { ConsumedRecord } from "../../../src/platform/kafka.ts";
import { conversationKey, partitionOf } from "../../../src/platform/murmur2.ts";
import { type SeenEvent, seenDigest } from "../history.ts";
import { Judgement } from "./judgement.ts";
import type { Stored, StoredEvent } from "./stored.ts";

/** What of a record is judged. */
export type TopicRecord = Pick<ConsumedRecord, "key" | "headers"> & { value: Uint8Array | string | null };

/** A conversation's place in a topic. */
interface Place {
  events: StoredEvent[];
  placeOf: Map<number, number>;
  next: number;
  partition: number;
}

/** Takes a topic's records, each partition in order, and then judges what is missing. */
export class TopicCheck {
  readonly judgement = new Judgement("topics");
  /** Occurrences after the first. */
  repeats = 0;
  readonly #topic: string;
  readonly #places: Map<string, Place>;

  /** `carried`: which conversations the topic must have. */
  constructor(
    topic: string,
    stored: Stored,
    carried: (conversationId: string) => boolean,
    partitions: number,
  ) {
    this.#topic = topic;
    this.#places = new Map(
      stored
        .values()
        .filter(({ id }) => carried(id))
        .map(({ id, events }) => [
          conversationKey(id),
          {
            events,
            placeOf: new Map(events.map(({ number }, index) => [number, index])),
            next: 0,
            partition: partitionOf(conversationKey(id), partitions),
          },
        ]),
    );
  }

  take(partition: number, record: TopicRecord): void {
    this.judgement.checked += 1;
    const key = String(record.key);
    const number = Number(record.headers["sequence_number"]);
    const where = `${this.#topic}, partition ${partition}: ${key} ${number}`;
    const place = this.#places.get(key);
    const index = place?.placeOf.get(number);
    const event = index === undefined ? undefined : place?.events[index];
    if (place === undefined || index === undefined || event === undefined) {
      this.judgement.broken(`${where} has no business here`);
      return;
    }
    if (partition !== place.partition) this.judgement.broken(`${where} belongs on ${place.partition}`);
    if (index < place.next) this.repeats += 1;
    else if (index > place.next) {
      this.judgement.broken(`${where} comes where ${place.events[place.next]?.number} was next`);
    }
    place.next = Math.max(place.next, index + 1);
    const fault = contentFault(record, event);
    if (fault !== undefined) this.judgement.broken(`${where}: ${fault}`);
  }

  end(): Judgement {
    for (const [key, { events, next }] of this.#places) {
      const missing = events[next]?.number;
      if (missing === undefined) continue;
      this.judgement.broken(`${this.#topic}: ${key} ends before ${missing} of ${events.at(-1)?.number}`);
    }
    return this.judgement;
  }
}

function contentFault({ value, headers }: TopicRecord, event: StoredEvent): string | undefined {
  const text = value === null || typeof value === "string" ? value : Buffer.from(value).toString();
  if (text === null) return "has no value";
  const seen = JSON.parse(text) as SeenEvent;
  if (seenDigest(seen) !== event.digest) return "has other content than is stored";
  const wanted: Record<string, string> = {
    ce_specversion: "1.0",
    ce_id: `${seen.conversation_id}:${event.number}`,
    ce_type: `chat4all.${event.event}.v1`,
    ce_subject: seen.conversation_id,
    ce_time: new Date(event.createdAtMs).toISOString(),
    message_id: event.messageId,
  };
  const wrong = Object.entries(wanted).find(([name, value_]) => headers[name] !== value_);
  return wrong && `has header ${wrong[0]}: ${headers[wrong[0]]}, not ${wrong[1]}`;
}
