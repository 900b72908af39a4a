// kafkajs, as all of this folder uses it: quick to notice a dead broker, silent, and possible to cut off for good.

import { connect, type Socket } from "node:net";
import { Kafka, logLevel } from "kafkajs";
// @ts-expect-error an inner module of kafkajs, without types
import RequestQueue from "kafkajs/src/network/requestQueue/index.js";
import { OperatingError } from "../../model/errors.ts";
import { pause } from "../pause.ts";

/** Where the cluster is: `brokers` are `host:port`, a few of them suffice; `clientId` shows in the brokers' logs. */
export interface KafkaSettings {
  brokers: string[];
  clientId: string;
}

/** One client with sockets of its own. After `cut` it can neither read nor write anything, ever again. */
export interface KafkaLink {
  kafka: Kafka;
  cut(): void;
}

/** The settings that recovered fastest when brokers died (docs/architecture.md). */
export const retrySettings = { initialRetryTime: 100, maxRetryTime: 1_000, retries: 5 };
export const requestTimeoutMs = 5_000;
const connectionTimeoutMs = 1_000;
const keepAliveDelayMs = 60_000;

/** A client that has not connected yet. */
export function openLink(settings: KafkaSettings): KafkaLink {
  const sockets = new Set<Socket>();
  let isCut = false;
  const kafka = new Kafka({
    brokers: settings.brokers,
    clientId: settings.clientId,
    logLevel: logLevel.NOTHING,
    requestTimeout: requestTimeoutMs,
    connectionTimeout: connectionTimeoutMs,
    retry: retrySettings,
    socketFactory: ({ host, port, onConnect }) => {
      if (isCut) throw new OperatingError("kafka_link_cut");
      const socket = connect({ host, port }, onConnect);
      socket.setNoDelay(true);
      socket.setKeepAlive(true, keepAliveDelayMs);
      sockets.add(socket);
      socket.once("close", () => sockets.delete(socket));
      return socket;
    },
  });
  return {
    kafka,
    // kafkajs goes on with a send after `disconnect()`, on new connections if need be. A send that we gave
    // up on must not: so its sockets are destroyed, and it gets no others.
    cut() {
      isCut = true;
      for (const socket of sockets) socket.destroy(new OperatingError("kafka_link_cut"));
      sockets.clear();
    },
  };
}

/** Waits 100 ms, doubled with each attempt (from 0) up to a second, or until `signal` aborts. */
export function backOff(attempt: number, signal: AbortSignal): Promise<void> {
  return pause(Math.min(100 * 2 ** attempt, 1_000), signal);
}

// kafkajs sets a timer after each answer even when no request waits for it, with a time long past, of which
// Bun warns. Without a waiting request there is nothing to look after.
const scheduleCheck = RequestQueue.prototype.scheduleCheckPendingRequests;
RequestQueue.prototype.scheduleCheckPendingRequests = function (this: { pending: unknown[] }) {
  if (this.pending.length > 0) scheduleCheck.call(this);
};
