// Sockets and event streams on a bare application: real Postgres, Redis and hub, callers by the token's own words.
import { Elysia } from "elysia";
import { type Connections, openConnections } from "../../src/deliver/connections.ts";
import { eventStreamRoutes } from "../../src/deliver/event-stream.ts";
import type { Hub } from "../../src/deliver/hub.ts";
import { openPresence } from "../../src/deliver/presence.ts";
import { type StreamDependencies, webSocketLimits, webSocketRoutes } from "../../src/deliver/websocket.ts";
import type { Caller } from "../../src/identity/caller.ts";
import { Problem } from "../../src/model/errors.ts";
import { log, type Stand } from "./stand.ts";

/** What a test's token says; it is the token. */
interface Claims {
  user: string;
  scopes?: string[];
  /** Seconds from now. */
  life?: number;
  id?: string;
}

/** The token of these claims. */
export function tokenOf(claims: Claims): string {
  return btoa(JSON.stringify({ expiresAt: Date.now() / 1000 + (claims.life ?? 3600), ...claims }));
}

function callerOf(request: Request): Caller {
  const token =
    request.headers.get("authorization")?.slice(7) ?? new URL(request.url).searchParams.get("access_token");
  if (token === null) throw new Problem(401, "missing_token", "A bearer token is needed.");
  const claims = JSON.parse(atob(token)) as Claims & { expiresAt: number };
  return {
    userId: claims.user,
    scopes: new Set(claims.scopes ?? ["messages:read", "messages:write"]),
    expiresAt: claims.expiresAt,
    tokenIds: claims.id === undefined ? [] : [claims.id],
  };
}

/** An instance's streams. */
export interface TestApp extends AsyncDisposable {
  url: string;
  hub: Hub;
  connections: Connections;
  /** Ids of tokens that Postgres would call revoked. */
  revoked: Set<string>;
}

/** Starts an instance; `changes` replace what the streams depend on, `limits` the bounds of all together. */
export async function openApp(
  stand: Stand,
  redisUrl: string,
  changes: Partial<StreamDependencies> = {},
  limits: { unreadBytesMax?: number } = {},
): Promise<TestApp> {
  const testHub = await stand.openHub(redisUrl);
  const { hub, redis } = testHub;
  const revoked = new Set<string>();
  const isRevoked = async ({ tokenIds }: Caller) => tokenIds.some((id) => revoked.has(id));
  const connections = openConnections({ isRevoked, onRevoked: hub.onRevoked, ...limits });
  const presence = openPresence({ hub, redis, log });
  const dependencies: StreamDependencies = {
    hub,
    presence,
    connections,
    authenticate: callerOf,
    isRevoked,
    async send(_caller, body) {
      const { conversation_id } = body as { conversation_id: string };
      const events = await stand.commit(conversation_id);
      hub.publish(events);
      return { sequence_number: events[0]?.sequence_number ?? 0, replay: false };
    },
    moveCursors: async (_caller, _conversationId, { delivered = 0, read = 0 }) => ({
      delivered: Math.max(delivered, read),
      read,
    }),
    ...changes,
  };
  const app = new Elysia({ normalize: false, websocket: webSocketLimits })
    .onError(({ error }) => {
      const status = error instanceof Problem ? error.status : 400;
      return new Response(error instanceof Problem ? error.code : "", { status });
    })
    .use(webSocketRoutes(dependencies))
    .use(eventStreamRoutes(dependencies))
    .listen({ port: 0, hostname: "127.0.0.1", reusePort: false });
  return {
    url: `http://127.0.0.1:${app.server?.port}`,
    hub,
    connections,
    revoked,
    async [Symbol.asyncDispose]() {
      connections.closeAll();
      presence.close();
      await app.stop(true);
      await testHub[Symbol.asyncDispose]();
    },
  };
}
