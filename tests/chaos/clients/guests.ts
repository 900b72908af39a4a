// Guests are added to conversations and removed again, read and write there meanwhile, and try to write afterwards.
import type { Conversation, Move } from "../history.ts";
import { call } from "./calls.ts";
import { composeMessage } from "./compose.ts";
import type { Deliveries } from "./delivery.ts";
import { noteNumber, type World } from "./world.ts";

/** Told when a guest may read a conversation, from this number on. */
export type OnAdded = (guest: string, conversationId: string, number: number) => void;

const stayMs = [300, 2_000] as const;
const pauseMs = [100, 1_000] as const;
const retryPauseMs = [200, 800] as const;

/** All of them, each with one conversation at a time. */
export class Guests {
  onAdded: OnAdded = () => undefined;
  moves = 0;
  readonly #world: World;
  readonly #deliveries: Deliveries;
  /** Where each is, or may be. */
  readonly #at = new Map<string, string>();
  readonly #over = new AbortController();
  #running: number;

  constructor(world: World, deliveries: Deliveries) {
    this.#world = world;
    this.#deliveries = deliveries;
    this.#running = world.guests.length;
    for (const guest of world.guests) void this.#live(guest).finally(() => (this.#running -= 1));
  }

  /** Those who are members stay until the end. */
  stop(): void {
    this.#over.abort();
  }

  /** As far as answers tell. */
  isMember(guest: string, conversationId: string): boolean {
    return this.#at.get(guest) === conversationId;
  }

  isIdle(): boolean {
    return this.#running === 0;
  }

  async #live(guest: string): Promise<void> {
    const { random, conversations, ownerOf } = this.#world;
    const groups = conversations.filter(({ memberIds }) => memberIds.length > 2);
    while (!this.#over.signal.aborted) {
      const conversation = random.pick(groups);
      const owner = ownerOf.get(conversation.id) ?? "";
      const path = `/v1/conversations/${conversation.id}/members`;
      await this.#pause(pauseMs);
      const body = { user_id: guest };
      this.#at.set(guest, conversation.id);
      const number = await this.#move("member.added", conversation, guest, {
        user: owner,
        method: "POST",
        path,
        body,
      });
      if (this.#over.signal.aborted) return;
      this.onAdded(guest, conversation.id, number ?? 0);
      for (let posts = random.between(1, 4); posts > 0; posts -= 1) {
        await this.#pause(stayMs);
        if (this.#over.signal.aborted) return;
        this.#post(conversation, guest);
      }
      const by = random.next() < 0.3 ? guest : owner;
      await this.#move("member.removed", conversation, guest, {
        user: by,
        method: "DELETE",
        path: `${path}/${guest}`,
      });
      this.#at.delete(guest);
      // It must be refused: what is stored is judged by its number.
      this.#post(conversation, guest);
    }
  }

  #post(conversation: Conversation, guest: string): void {
    const target = this.#world.targets.pick(this.#world.random);
    if (target === undefined) return;
    const letter = composeMessage(this.#world, conversation, guest);
    this.#world.history.posts.push(letter.post);
    void this.#deliveries.postAlone(letter, target);
  }

  /** Until it is known to be done: a refusal of a later try says that an earlier one was. Answers its number. */
  async #move(
    kind: Move["kind"],
    { id }: Conversation,
    guest: string,
    what: { user: string; method: string; path: string; body?: unknown },
  ): Promise<number | undefined> {
    const move: Move = { kind, conversationId: id, userId: guest, tries: [] };
    this.#world.history.moves.push(move);
    this.moves += 1;
    for (;;) {
      const target = this.#world.targets.pick(this.#world.random);
      if (target !== undefined) {
        const { tried, body } = await call(this.#world, target, {
          client: `members by ${what.user}`,
          ...what,
        });
        move.tries.push(tried);
        if (tried.outcome === "ok" && kind === "member.added") {
          tried.number = body.sequence_number;
          noteNumber(this.#world, id, body.sequence_number);
        }
        if (tried.outcome !== "unknown") return tried.number;
      }
      await Bun.sleep(this.#world.random.between(...retryPauseMs));
    }
  }

  async #pause([least, most]: readonly [number, number]): Promise<void> {
    const pause = this.#world.random.between(least, most);
    await Promise.race([
      Bun.sleep(pause),
      new Promise((resolve) => this.#over.signal.addEventListener("abort", resolve)),
    ]);
  }
}
