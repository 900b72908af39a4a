// Who may read and write follows from the numbers of the events that add and remove members: whoever was removed sends
// nothing, and gets nothing, that is numbered after that.
import { acknowledged, type History, invokedAtMs, type Move, type Track } from "../history.ts";
import { Judgement, seconds } from "./judgement.ts";
import type { Stored, StoredConversation } from "./stored.ts";

/** From this number on, up to that of the removal. */
interface Membership {
  from: number;
  to: number;
}

export function judgeMembers(history: History, stored: Stored): Judgement {
  const judgement = new Judgement("members");
  const initial = new Map(history.conversations.map(({ id, memberIds }) => [id, memberIds]));
  const moves = Map.groupBy(history.moves, ({ conversationId, userId }) => `${conversationId} ${userId}`);
  const tracks = Map.groupBy(history.tracks, ({ conversationId }) => conversationId);
  for (const conversation of stored.values()) {
    const { id, events } = conversation;
    const memberships = membershipsOf(conversation, initial.get(id) ?? [], judgement);
    for (const { number, senderId, event } of events) {
      judgement.checked += 1;
      const mine = memberships.get(senderId) ?? [];
      // Its own removal is the last that a member sends.
      if (mine.some(({ from, to }) => from <= number && number <= to)) continue;
      judgement.broken(`${id}: ${number}, ${event}, is of ${senderId}, who was no member then`);
    }
    for (const [user, list] of memberships)
      judgeMoves(id, user, list, moves.get(`${id} ${user}`) ?? [], judgement);
    for (const track of tracks.get(id) ?? []) {
      judgeReader(
        track,
        memberships.get(track.userId) ?? [],
        moves.get(`${id} ${track.userId}`) ?? [],
        judgement,
      );
    }
  }
  return judgement;
}

function membershipsOf(
  { id, events }: StoredConversation,
  initial: readonly string[],
  judgement: Judgement,
): Map<string, Membership[]> {
  const forever = Number.POSITIVE_INFINITY;
  const memberships = new Map(initial.map((user) => [user, [{ from: 0, to: forever }]]));
  for (const { event, number, userId } of events) {
    if (userId === undefined) continue;
    const list = memberships.get(userId) ?? [];
    memberships.set(userId, list);
    const current = list.at(-1);
    const isMember = current?.to === forever;
    if (event === "member.added" && !isMember) list.push({ from: number, to: forever });
    else if (event === "member.removed" && isMember) current.to = number;
    else judgement.broken(`${id}: ${number}, ${event} of ${userId}, changes nothing`);
  }
  return memberships;
}

/** As many moves are stored as were acknowledged, or may have been. */
function judgeMoves(id: string, user: string, list: Membership[], moves: Move[], judgement: Judgement): void {
  const stored = {
    "member.added": list.filter(({ from }) => from > 0).length,
    "member.removed": list.filter(({ to }) => Number.isFinite(to)).length,
  };
  for (const kind of ["member.added", "member.removed"] as const) {
    const tries = moves.filter((move) => move.kind === kind).flatMap((move) => move.tries);
    const sure = tries.filter(({ outcome }) => outcome === "ok").length;
    const possible = tries.filter(({ outcome }) => outcome !== "failed").length;
    const found = stored[kind];
    if (found >= sure && found <= possible) continue;
    judgement.broken(
      `${id}: ${found} ${kind} of ${user}, of which ${sure} were acknowledged, ${possible} possible`,
    );
  }
  for (const move of moves) {
    const answer = acknowledged(move);
    if (
      move.kind === "member.removed" ||
      answer?.number === undefined ||
      list.some(({ from }) => from === answer.number)
    )
      continue;
    judgement.broken(`${id}: ${answer.number} does not add ${user}, but was acknowledged as doing so`);
  }
}

/** What lies between two memberships may be read as history, once the second was asked for; also while it ends. */
function judgeReader(track: Track, list: Membership[], moves: Move[], judgement: Judgement): void {
  if (list.length === 1 && list[0]?.from === 0 && list[0].to === Number.POSITIVE_INFINITY) return;
  const additions = moves.filter(({ kind }) => kind === "member.added");
  for (const [index, number] of track.numbers.entries()) {
    const atMs = track.atMs[index] ?? 0;
    const over = list.findLast(({ from, to }) => from <= number && to < number);
    if (over === undefined || list.some(({ from, to }) => from <= number && number <= to)) continue;
    const next = list.find(({ from }) => from > number);
    if (next !== undefined && mayHaveBegun(next, additions, atMs)) continue;
    judgement.broken(
      `${track.conversationId}: ${track.reader} got ${number} at ${seconds(atMs)} after ${track.numbers[index - 1] ?? track.after}, ` +
        `but its user was removed by ${over.to}, and was a member from ${list.map(({ from, to }) => `${from} to ${to}`).join(", ")} only`,
    );
  }
}

/**
 * Whether an addition that may have begun a membership was asked for by then: one with its number, or one of which a try
 * stayed unknown. Such a try may be stored as late as its instance likes, also after another try was answered.
 */
function mayHaveBegun({ from }: Membership, additions: Move[], atMs: number): boolean {
  return additions.some((move) => {
    const isIt = acknowledged(move)?.number === from || move.tries.some(({ outcome }) => outcome !== "ok");
    return isIt && invokedAtMs(move) < atMs;
  });
}
