// Who and what is there before the hostile input comes, so that some of it gets far.
import * as fc from "fast-check";
import type { HostileNode } from "./node.ts";
import type { HostileRequest, Role } from "./requests.ts";
import { type Known, oddText } from "./values.ts";

/** What a scene needs of a node. */
export type SceneNode = Pick<HostileNode, "call" | "token" | "makeGroup" | "post" | "makeClient" | "config">;

/** Users, conversations, clients. */
export interface Scene {
  conversations: string[];
  known: Known;
  /** The value of the Authorization header; undefined for nobody. */
  authorization(role: Role): string | undefined;
  /** A user's token, for a socket. */
  tokens: Readonly<Record<"owner" | "member" | "outsider", string>>;
}

/** The headers with which a request is sent. */
export function headersOf(url: string, scene: Scene, { role, headers }: HostileRequest): [string, string][] {
  const authorization = headers.some(([name]) => name === "authorization")
    ? undefined
    : scene.authorization(role);
  const all: [string, string][] = [["host", new URL(url).host], ...headers];
  return authorization === undefined ? all : [...all, ["authorization", authorization]];
}

/** Makes alice (owner), bob (member), mallory (outsider), an operator, an OAuth client, and two groups. */
export async function makeScene(node: SceneNode): Promise<Scene> {
  const conversations = [await node.makeGroup(["bob"]), await node.makeGroup(["bob", "carol"])];
  for (const id of conversations) for (let at = 0; at < 10; at += 1) await node.post(id, `text ${at}`);
  const client = await node.makeClient(["admin", "messages:read", "messages:write"]);
  const aDay = { expiresInSeconds: 86_400 };
  const tokens = {
    owner: await node.token("alice", aDay),
    member: await node.token("bob", aDay),
    outsider: await node.token("mallory", aDay),
  };
  const operator = await node.token("operator", { scope: "admin", ...aDay });
  const forger = `${tokens.owner.slice(0, -4)}AAAA`;
  const signedIn = await node.call("POST", "/v1/users/dave/tokens", {}, { token: operator });

  return {
    conversations,
    tokens,
    authorization(role) {
      switch (role) {
        case "nobody":
          return undefined;
        case "client":
          return `Basic ${Buffer.from(`${client.id}:${client.secret}`).toString("base64")}`;
        case "operator":
          return `Bearer ${operator}`;
        case "forger":
          return `Bearer ${forger}`;
        case "owner":
        case "member":
        case "outsider":
          return `Bearer ${tokens[role]}`;
        default:
          return role satisfies never;
      }
    },
    known: knownOf(conversations, String(signedIn.body.refresh_token)),
  };
}

/** Most of what is asked for is there, some is not. */
function knownOf(conversations: string[], refreshToken: string): Known {
  const user = fc.oneof(
    { weight: 3, arbitrary: fc.constantFrom("bob", "carol", "dave") },
    { weight: 2, arbitrary: fc.nat(99).map((number) => `user-${number}`) },
    { weight: 1, arbitrary: fc.string({ unit: "grapheme", minLength: 1, maxLength: 20 }) },
    { weight: 1, arbitrary: fc.oneof(oddText, fc.constant("nul\0")) },
  );
  const id = fc.oneof(
    { weight: 8, arbitrary: fc.constantFrom(...conversations) },
    { weight: 1, arbitrary: fc.uuid() },
  );
  const scope = fc.constantFrom("messages:read", "messages:read messages:write", "admin", "", "nothing");
  const messageId = fc.oneof(
    { weight: 8, arbitrary: fc.uuid() },
    // Few enough that some come again, with the same body or another.
    { weight: 1, arbitrary: fc.nat(9).map((at) => `00000000-0000-4000-8000-00000000000${at}`) },
  );
  return {
    user_id: user,
    "members[]": user,
    conversation_id: id,
    message_id: messageId,
    sequence_number: fc.integer({ min: 1, max: 30 }),
    "channels[]": fc.constantFrom("support", "audit", "nothing"),
    scope,
    grant_type: fc.constantFrom("client_credentials", "refresh_token"),
    refresh_token: fc.constantFrom(refreshToken, "r_nothing"),
    // The client is told by its header, mostly.
    client_id: fc.constantFrom("", "c_nothing"),
    client_secret: fc.constant(""),
    access_token: fc.string({ maxLength: 8 }),
    // A batch's schema does not say what its rows are.
    "messages[]": fc.record({
      message_id: messageId,
      conversation_id: id,
      payload: fc.record({ type: fc.constant("text"), text: fc.string({ minLength: 1, maxLength: 20 }) }),
    }),
  };
}
