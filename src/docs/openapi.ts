// The OpenAPI document and its page, which needs nothing from outside: the viewer is a file of this build.
import { openapi } from "@elysiajs/openapi";
import { Elysia } from "elysia";
import viewer from "../../node_modules/@scalar/api-reference/dist/browser/standalone.js" with {
  type: "file",
};
import type { Config } from "../config.ts";
import { problemSchema } from "../edge/problems.ts";
import { build } from "../version.ts";
import { asyncApiDocument } from "./asyncapi.ts";

const description = `Messages that are stored once, numbered within their conversation, and never lost, doubled or
reordered. Sockets (/v1/stream) and topics are described in /docs/asyncapi.json.`;

type OpenApiSettings = NonNullable<Parameters<typeof openapi>[0]>;

// Nothing is fetched from outside and nothing is sent there: no fonts, telemetry, assistants or tools of the viewer's
// maker. The type wants every setting; the viewer has defaults.
const viewerSettings = {
  url: "/openapi.json",
  cdn: "/docs/viewer.js",
  withDefaultFonts: false,
  telemetry: false,
  showDeveloperTools: "never",
  hideClientButton: true,
  agent: { disabled: true },
  mcp: { disabled: true },
} as unknown as NonNullable<OpenApiSettings["scalar"]>;

/** GET /openapi.json, GET /docs, the viewer's script, and GET /docs/asyncapi.json. */
export function documentRoutes(config: Config) {
  return new Elysia({ name: "docs" })
    .get(
      "/docs/viewer.js",
      () => new Response(Bun.file(viewer), { headers: { "content-type": "text/javascript" } }),
      {
        detail: { hide: true },
      },
    )
    .get("/docs/asyncapi.json", () => asyncApiDocument(config), { detail: { hide: true } })
    .use(
      openapi({
        path: "/docs",
        specPath: "/openapi.json",
        documentation: {
          info: { title: "Chat4All", version: build.version, description },
          tags: ["messages", "conversations", "streams", "identity", "admin"].map((name) => ({ name })),
          security: [{ bearer: [] }],
          components: {
            securitySchemes: { bearer: { type: "http", scheme: "bearer", bearerFormat: "JWT" } },
            schemas: { Problem: problemSchema as object },
          },
        },
        scalar: viewerSettings,
      }),
    );
}
