// The root of the HTTP side: every route, in the order of the walk, and the one place where errors become answers.
import { Elysia } from "elysia";
import { adminRoutes } from "./admin/routes.ts";
import type { Config } from "./config.ts";
import {
  type ConversationParts,
  conversationReadRoutes,
  conversationWriteRoutes,
} from "./conversations/routes.ts";
import { eventStreamRoutes } from "./deliver/event-stream.ts";
import { type StreamDependencies, webSocketLimits, webSocketRoutes } from "./deliver/websocket.ts";
import { documentRoutes } from "./docs/openapi.ts";
import type { Edge } from "./edge/edge.ts";
import { healthRoutes, type Readiness } from "./edge/health.ts";
import type { RateLimits } from "./edge/rate-limits.ts";
import { credentialRoutes, type IdentityParts, oauthRoutes } from "./identity/routes.ts";
import type { Changes } from "./ingest/change.ts";
import type { Collector } from "./ingest/collector.ts";
import { batchRoutes, changeRoutes, messageRoutes } from "./ingest/routes.ts";

/** Everything that the routes need; made and closed by openApi. */
export interface AppParts {
  config: Config;
  edge: Edge;
  limits: RateLimits;
  collector: Collector;
  changes: Changes;
  conversations: ConversationParts;
  identity: IdentityParts;
  streams: StreamDependencies;
  readiness: Readiness;
}

/** The application, not yet listening. */
export function createApp(parts: AppParts) {
  const { config, edge, limits } = parts;
  return new Elysia({
    normalize: false,
    // A short host name without a port is a host like any other.
    handler: { standardHostname: false },
    websocket: webSocketLimits,
    serve: { maxRequestBodySize: 16 * 1024 * 1024, reusePort: false },
  })
    .use(edge.plugin)
    .use(healthRoutes(parts.readiness))
    .use(documentRoutes(config))
    .use(oauthRoutes(parts.identity))
    .use(credentialRoutes(edge, parts.identity))
    .use(messageRoutes(edge, parts.collector, limits))
    .use(batchRoutes(edge, parts.collector, limits))
    .use(changeRoutes(edge, parts.changes, limits))
    .use(conversationWriteRoutes(edge, parts.conversations))
    .use(conversationReadRoutes(edge, parts.conversations))
    .use(webSocketRoutes(parts.streams))
    .use(eventStreamRoutes(parts.streams))
    .use(adminRoutes(edge, parts.conversations.postgres));
}
