// GET /v1/stream: the upgrade. From then on a Socket deals with the frames.
//
// Elysia's `.ws` makes a wrapper and parses JSON of its own accord for each message; `server.upgrade` with data that
// has the handlers goes through the same dispatcher of Elysia's without either.
import { Elysia } from "elysia";
import { describeCall } from "../edge/describe.ts";
import type { Caller } from "../identity/caller.ts";
import { revokedToken } from "../identity/tokens.ts";
import { Problem } from "../model/errors.ts";
import type { Connections } from "./connections.ts";
import type { Hub } from "./hub.ts";
import type { Presence } from "./presence.ts";
import { type RawSocket, Socket } from "./socket.ts";

/** What sockets and event streams need from the other stops. */
export interface StreamDependencies {
  hub: Hub;
  presence: Presence;
  connections: Connections;
  /** The caller of an upgrade request or event stream; throws Problem 401. */
  authenticate(request: Request): Promise<Caller> | Caller;
  isRevoked(caller: Caller): Promise<boolean>;
  /** Stores a message as POST /v1/messages does; `body` is {message_id, conversation_id, payload}, unchecked. */
  send(caller: Caller, body: unknown): Promise<{ sequence_number: number; replay: boolean }>;
  /** Moves the caller's cursors; `body` is {delivered?, read?}. Telling the others is done here. */
  moveCursors(
    caller: Caller,
    conversationId: string,
    body: { delivered?: number; read?: number },
  ): Promise<{ delivered: number; read: number }>;
}

/**
 * To be given to the root as `new Elysia({ websocket: webSocketLimits })`: Bun has one setting for all sockets.
 * Our own bound of what is buffered (`bufferedBytesMax` in socket.ts) is below this one, so that the frames of the
 * close still fit. A frame above `bodyBytesMax.message` and below this payload is answered with 413, and not by a
 * closed socket.
 */
export const webSocketLimits = {
  maxPayloadLength: 80 * 1024,
  backpressureLimit: 4 * 1024 * 1024,
  closeOnBackpressureLimit: true,
  idleTimeout: 60,
  sendPings: true,
};

const details = describeCall(
  "streams",
  "Opens a WebSocket; its frames are in /docs/asyncapi.json",
  { 101: null },
  [400],
);

/** The route of sockets. */
export function webSocketRoutes(dependencies: StreamDependencies) {
  return new Elysia({ name: "stream" }).get(
    "/v1/stream",
    async ({ request, server }) => {
      const caller = await dependencies.authenticate(request);
      if (await dependencies.isRevoked(caller)) throw revokedToken();
      dependencies.connections.checkRoom();
      const socket = new Socket(caller, dependencies);
      const data = {
        open: (raw: RawSocket) => socket.opened(raw),
        message: (_raw: RawSocket, frame: string | Uint8Array) => socket.received(frame),
        drain: () => socket.wasDrained(),
        close: () => socket.closed(),
      };
      if (server?.upgrade(request, { data }) !== true) {
        throw new Problem(400, "upgrade_required", "This path is for WebSockets.");
      }
    },
    { detail: details },
  );
}
