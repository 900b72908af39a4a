// Who talks where: users, conversations of every kind, and the instances that they talk to.
import type { Config } from "../../../src/config.ts";
import type { Random } from "../../support/random.ts";
import { callsOf } from "../../support/server.ts";
import { upTo } from "../../support/walk.ts";
import { type Conversation, emptyHistory, type History } from "../history.ts";

/** What clients know of an instance. */
export interface Target {
  readonly name: string;
  readonly url: string;
}

/** What all clients share. */
export interface World {
  random: Random;
  targets: Targets;
  history: History;
  /** Where clients talk; the history also has others, of probes. */
  conversations: Conversation[];
  /** Gets a share of the traffic of its own. */
  hot: Conversation;
  users: string[];
  /** They come and go. */
  guests: string[];
  /** Of everybody; good for a day, on clocks that are wrong by an hour as well. */
  tokens: Map<string, string>;
  /** Each conversation's owner. */
  ownerOf: Map<string, string>;
  /** The highest number of each conversation that anybody was told. */
  knownLast: Map<string, number>;
}

/** How large a world is. */
export interface WorldSize {
  users: number;
  conversations: number;
  guests: number;
}

const membersInEach = 8;
const directEvery = 8;
const awayMs = 700;

/** Instances, and which of them clients leave alone for a while because a call failed there. */
export class Targets {
  readonly all: readonly Target[];
  readonly #awayUntilMs = new Map<string, number>();

  constructor(all: readonly Target[]) {
    this.all = all;
  }

  /** Any that is not known to be away; `other`: but this one, if there is another. */
  pick(random: Random, other?: string): Target | undefined {
    const here = this.all.filter(({ name }) => !this.isAway(name));
    const others = here.filter(({ name }) => name !== other);
    if (here.length === 0) return undefined;
    return random.pick(others.length > 0 ? others : here);
  }

  isAway(name: string): boolean {
    return performance.now() < (this.#awayUntilMs.get(name) ?? 0);
  }

  failed(name: string): void {
    this.#awayUntilMs.set(name, performance.now() + awayMs);
  }
}

/** Makes everything through the API, while nothing is broken yet. */
export async function makeWorld(
  targets: readonly Target[],
  config: Config,
  random: Random,
  size: WorldSize,
): Promise<World> {
  const [first] = targets;
  if (first === undefined) throw new Error("no instance");
  const users = upTo(size.users).map((number) => `user-${number}`);
  const guests = upTo(size.guests).map((number) => `guest-${number}`);
  const calls = callsOf(first.url, config);
  const sign = async (user: string) => [user, await calls.token(user, { expiresInSeconds: 86_400 })] as const;
  const tokens = new Map(await Promise.all([...users, ...guests].map(sign)));
  const conversations: Conversation[] = [];
  const ownerOf = new Map<string, string>();

  const inEach = Math.min(membersInEach, Math.ceil(users.length / 2));

  const make = async (number: number): Promise<Conversation> => {
    const owner = users[number % users.length] as string;
    const others = random.shuffle(users.filter((user) => user !== owner));
    const isDirect = number % directEvery === 0;
    const members = number === 1 ? others : others.slice(0, isDirect ? 1 : inEach - 1);
    const channels = [...(number % 3 === 0 ? ["support"] : []), ...(number % 5 === 0 ? ["audit"] : [])];
    const body = { kind: isDirect ? "direct" : "group", members, channels: isDirect ? [] : channels };
    const token = tokens.get(owner) ?? "";
    const made = await calls.call("POST", "/v1/conversations", body, { token });
    if (made.status >= 300) throw new Error(`no conversation: ${made.status} ${JSON.stringify(made.body)}`);
    const id: string = made.body.id;
    ownerOf.set(id, owner);
    return { id, channels: body.channels, memberIds: [owner, ...members] };
  };
  for (const number of upTo(size.conversations)) {
    const conversation = await make(number);
    // Two users have one direct conversation, however often it is made.
    if (!conversations.some(({ id }) => id === conversation.id)) conversations.push(conversation);
  }
  const [hot] = conversations;
  if (hot === undefined) throw new Error("no conversation");
  return {
    random,
    targets: new Targets(targets),
    history: { ...emptyHistory(), conversations: [...conversations] },
    conversations,
    hot,
    users,
    guests,
    tokens,
    ownerOf,
    knownLast: new Map(),
  };
}

/** Notes a number that somebody was told. */
export function noteNumber({ knownLast }: World, conversationId: string, number: number): void {
  if (number > (knownLast.get(conversationId) ?? 0)) knownLast.set(conversationId, number);
}
