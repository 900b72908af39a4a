// Everything that is open on this instance, socket or event stream: ended when its token expires or is revoked,
// and when the instance drains. Each second all are looked at; a revocation that Redis brings ends them at once.
import type { Caller } from "../identity/caller.ts";
import { expiredToken, revokedToken } from "../identity/tokens.ts";
import { overloaded, type Problem, unavailable } from "../model/errors.ts";
import { type Backlog, openBacklog } from "./backlog.ts";

/** An open socket or event stream. */
export interface Connection {
  readonly caller: Caller;
  /** Whether it is a request that is not over yet, as an event stream is and a socket is not. */
  readonly isRequest: boolean;
  /** Ends it because its token holds no longer. */
  refuse(problem: Problem): void;
  /** Ends it so that its client comes again elsewhere. */
  drain(): void;
}

/** The open connections of one instance. */
export interface Connections {
  readonly size: number;
  /** How many of them are event streams. */
  readonly eventStreams: number;
  /** What they have not read yet. */
  readonly backlog: Backlog;
  /** Notes that a socket's frame is being dealt with, until what it answers is called. Throws Problem 503 beyond the bound. */
  holdFrame(bytes: number): () => void;
  /** Notes a new one and answers what forgets it again. Throws Problem 503 when there are too many, or on drain. */
  add(connection: Connection): () => void;
  /** Throws Problem 503 unless one more may be added. */
  checkRoom(): void;
  /** Ends all, and lets no more in. */
  closeAll(): void;
}

/** What is needed to watch tokens. */
export interface ConnectionsSettings {
  isRevoked(caller: Caller): Promise<boolean>;
  /** Registers for revocations of other instances. */
  onRevoked(listener: (tokenIds: readonly string[]) => void): void;
  /** What all together may have unread; default 128 MiB. */
  unreadBytesMax?: number;
}

const connectionsMax = 20_000;
const unreadBytesMaxDefault = 128 * 1024 * 1024;
/** Of frames from sockets that are being dealt with. */
const framesBytesMax = 64 * 1024 * 1024;
const sweepIntervalMs = 1000;
const callersPerQuestion = 500;

/** Starts watching; `closeAll` stops it. */
export function openConnections(settings: ConnectionsSettings): Connections {
  const { isRevoked, onRevoked, unreadBytesMax = unreadBytesMaxDefault } = settings;
  const open = new Set<Connection>();
  let eventStreams = 0;
  let framesBytes = 0;
  let isDraining = false;
  let isSweeping = false;

  const sweep = async () => {
    if (isSweeping) return;
    isSweeping = true;
    for (const connection of open) if (isExpired(connection.caller)) connection.refuse(expiredToken());
    // Postgres being away ends nobody: it is asked again in a second.
    await refuseRevoked([...open], isRevoked).catch(() => undefined);
    isSweeping = false;
  };
  const timer = setInterval(() => void sweep(), sweepIntervalMs);

  onRevoked((tokenIds) => {
    const revoked = new Set(tokenIds);
    for (const connection of open) {
      if (connection.caller.tokenIds.some((id) => revoked.has(id))) connection.refuse(revokedToken());
    }
  });

  const checkRoom = () => {
    if (isDraining) throw unavailable("draining", "This instance is going down; connect again.");
    if (open.size >= connectionsMax)
      throw unavailable("too_many_connections", "This instance has no room; try again.");
  };

  return {
    get size() {
      return open.size;
    },
    get eventStreams() {
      return eventStreams;
    },
    backlog: openBacklog(unreadBytesMax),
    holdFrame(bytes) {
      if (framesBytes + bytes > framesBytesMax) throw overloaded();
      framesBytes += bytes;
      return () => {
        framesBytes -= bytes;
      };
    },
    checkRoom,
    add(connection) {
      checkRoom();
      open.add(connection);
      if (connection.isRequest) eventStreams += 1;
      return () => {
        if (open.delete(connection) && connection.isRequest) eventStreams -= 1;
      };
    },
    closeAll() {
      isDraining = true;
      clearInterval(timer);
      for (const connection of open) connection.drain();
    },
  };
}

/** Whether a caller's token is over by now. */
export function isExpired(caller: Caller): boolean {
  return caller.expiresAt * 1000 <= Date.now();
}

async function refuseRevoked(
  connections: readonly Connection[],
  isRevoked: (caller: Caller) => Promise<boolean>,
): Promise<void> {
  for (let start = 0; start < connections.length; start += callersPerQuestion) {
    const some = connections.slice(start, start + callersPerQuestion);
    await Promise.all(
      some.map(async (connection) => {
        if (await isRevoked(connection.caller)) connection.refuse(revokedToken());
      }),
    );
  }
}
