// What readers got: from where they began, each event once, in the order of numbers and as it is stored, however often
// they reconnected in between.
import type { Track } from "../history.ts";
import { Judgement, seconds } from "./judgement.ts";
import type { Stored, StoredEvent } from "./stored.ts";

/** Whether a reader came to the end is not judged here, since it is waited for. */
export function judgeStreams(tracks: Track[], stored: Stored): Judgement {
  const judgement = new Judgement("streams");
  for (const track of tracks) judgeTrack(track, stored.get(track.conversationId)?.events ?? [], judgement);
  return judgement;
}

function judgeTrack(track: Track, events: StoredEvent[], judgement: Judgement): void {
  const where = `${track.conversationId}: ${track.reader}`;
  for (const fault of track.faults) judgement.broken(`${where}: ${fault}`);
  // The place of the next one in `events`.
  let next = events.findIndex(({ number }) => number > track.after);
  if (next === -1) next = events.length;
  const places = new Map(events.map(({ number }, place) => [number, place]));
  for (const [index, number] of track.numbers.entries()) {
    judgement.checked += 1;
    const at = seconds(track.atMs[index] ?? 0);
    const place = places.get(number);
    const expected = events[next]?.number;
    if (place === undefined) judgement.broken(`${where} got ${number} at ${at}, which is not stored`);
    else if (place < next) {
      const before = track.numbers.indexOf(number);
      const what = before < index ? "got a second time" : "came too late";
      judgement.broken(`${where}: ${number} ${what} at ${at}, after ${track.numbers[index - 1]}`);
    } else if (place > next) judgement.broken(`${where} got ${number} at ${at} where ${expected} was next`);
    if (place === undefined) continue;
    next = Math.max(next, place + 1);
    if (events[place]?.digest !== track.digests[index]) {
      judgement.broken(`${where} got ${number} at ${at} with other content than is stored`);
    }
  }
}
