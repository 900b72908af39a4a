// The one file through which Redis is reached. Redis is never in the durability path, so nothing here may make
// anybody wait: a command answers within `commandTimeoutMs` or fails, a circuit breaker fails it at once while Redis
// is away, publishing is fire and forget within a bound, and a connection that does not answer is replaced.
import { CircuitState, circuitBreaker, ConsecutiveBreaker, handleAll } from "cockatiel";
import { Redis as Connection, type RedisOptions } from "ioredis";
import { OperatingError } from "../model/errors.ts";
import type { Log } from "./log.ts";

/** How to reach Redis. */
export interface RedisSettings {
  /** `redis://`, `rediss://` or `redis+sentinel://[user:password@]host:port[,host:port]/name[/db]`. */
  url: string;
  /** First part of each key's and channel's name; callers of the functions below leave it out. */
  prefix: string;
  log: Log;
}

export type RedisState = "up" | "degraded";

/** One message for a channel. */
export interface ChannelMessage {
  channel: string;
  text: string;
}

/** What is told about channels that were listened to. */
export interface ChannelListener {
  message(channel: string, text: string): void;
  /** These channels are heard from now on; what was said before, or while Redis was away, was missed. */
  listening(channels: readonly string[]): void;
}

/** A client of one Redis: one connection for commands, one for channels. */
export interface Redis extends AsyncDisposable {
  /** `up` while both connections are ready and answered a ping within the last second. */
  state(): RedisState;
  /** 0 closed, 1 open, 2 half-open, as the circuit breaker has it. */
  circuitState(): CircuitState;
  onStateChange(listener: (state: RedisState) => void): void;
  /** The value of a key. Rejects with OperatingError `redis_unavailable`, as all commands do. */
  get(key: string): Promise<string | null>;
  set(key: string, value: string, lifetimeMs: number): Promise<void>;
  /** Runs a Lua script; `keys` get the prefix. */
  evaluate(script: string, keys: readonly string[], args: readonly (string | number)[]): Promise<unknown>;
  /** Publishes, without waiting and without an answer; false when dropped, since Redis is away or behind. */
  publish(messages: readonly ChannelMessage[]): boolean;
  /** Sets who hears the channels; once. */
  hear(listener: ChannelListener): void;
  listen(channel: string): void;
  unlisten(channel: string): void;
  close(): Promise<void>;
}

const commandTimeoutMs = 100;
const pingIntervalMs = 250;
const silenceMax = 4;
const failuresToOpen = 3;
const halfOpenAfterMs = 500;
/** Characters on their way to Redis; beyond that it is behind, and messages are dropped. */
const unansweredCharactersMax = 16 * 1024 * 1024;

/** Opens both connections in the background; commands fail until they are there. */
export function openRedis(settings: RedisSettings): Redis {
  const { prefix, log } = settings;
  const commands = connect(settings.url, { commandTimeout: commandTimeoutMs });
  const channels = connect(settings.url, { commandTimeout: 1000, autoResubscribe: false });
  const breaker = circuitBreaker(handleAll, {
    halfOpenAfter: halfOpenAfterMs,
    breaker: new ConsecutiveBreaker(failuresToOpen),
  });
  const stateListeners: ((state: RedisState) => void)[] = [];
  const listened = new Set<string>();
  let listener: ChannelListener | undefined;
  let lastState: RedisState = "degraded";
  let unansweredCharacters = 0;

  const run = async <T>(command: () => Promise<T>): Promise<T> => {
    try {
      return await breaker.execute(command);
    } catch (cause) {
      throw new OperatingError("redis_unavailable", { cause });
    }
  };

  const subscribe = (names: readonly string[]) => {
    if (names.length === 0 || channels.status !== "ready") return;
    channels.subscribe(...names.map((name) => prefix + name)).then(
      () => listener?.listening(names),
      () => channels.disconnect(true),
    );
  };
  channels.on("ready", () => subscribe([...listened]));
  channels.on("message", (channel, text) => listener?.message(channel.slice(prefix.length), text));

  const commandsPulse = pulseOf(commands, (ping) => run(ping));
  const channelsPulse = pulseOf(channels, (ping) => ping());
  const noteState = () => {
    const state = commandsPulse.isBeating() && channelsPulse.isBeating() ? "up" : "degraded";
    if (state === lastState) return;
    lastState = state;
    log[state === "up" ? "info" : "warn"]({ state }, "redis");
    for (const tell of stateListeners) tell(state);
  };
  const timer = setInterval(() => {
    commandsPulse.beat();
    channelsPulse.beat();
    noteState();
  }, pingIntervalMs);
  for (const connection of [commands, channels]) {
    connection.on("close", noteState);
    connection.on("ready", () => void (connection === commands ? commandsPulse : channelsPulse).beat().then(noteState));
  }

  const close = async () => {
    clearInterval(timer);
    commands.disconnect();
    channels.disconnect();
  };

  return {
    state: () => lastState,
    circuitState: () => breaker.state,
    onStateChange: (tell) => void stateListeners.push(tell),
    get: (key) => run(() => commands.get(prefix + key)),
    async set(key, value, lifetimeMs) {
      await run(() => commands.set(prefix + key, value, "PX", lifetimeMs));
    },
    evaluate: (script, keys, args) =>
      run(() => commands.eval(script, keys.length, ...keys.map((key) => prefix + key), ...args)),
    publish(messages) {
      if (commands.status !== "ready" || unansweredCharacters > unansweredCharactersMax) return false;
      const pipeline = commands.pipeline();
      let characters = 0;
      for (const { channel, text } of messages) {
        characters += text.length;
        pipeline.publish(prefix + channel, text);
      }
      unansweredCharacters += characters;
      pipeline.exec().then(
        () => (unansweredCharacters -= characters),
        () => (unansweredCharacters -= characters),
      );
      return true;
    },
    hear(theListener) {
      listener = theListener;
    },
    listen(channel) {
      listened.add(channel);
      subscribe([channel]);
    },
    unlisten(channel) {
      listened.delete(channel);
      if (channels.status === "ready") channels.unsubscribe(prefix + channel).catch(() => channels.disconnect(true));
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

function connect(url: string, options: RedisOptions): Connection {
  const connection = new Connection({
    ...addressOf(url),
    connectTimeout: 1000,
    disconnectTimeout: 500,
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    maxRetriesPerRequest: 0,
    disableClientInfo: true,
    retryStrategy: (times) => Math.min(20 * times, 250),
    // A replica that was promoted away answers READONLY: look for the new primary.
    reconnectOnError: (error) => error.message.startsWith("READONLY"),
    ...options,
  });
  // Told by `state`; without a listener ioredis prints every failed try.
  connection.on("error", () => undefined);
  return connection;
}

// Pings a connection, and replaces it when it has been silent for a second: a peer that is gone without a word
// (a paused host, a cut cable) never closes it.
function pulseOf(connection: Connection, run: (ping: () => Promise<unknown>) => Promise<unknown>) {
  let missedBeats = silenceMax;
  return {
    isBeating: () => connection.status === "ready" && missedBeats < silenceMax,
    async beat() {
      if (connection.status !== "ready") {
        missedBeats = silenceMax;
        return;
      }
      try {
        await run(() => connection.ping());
        missedBeats = 0;
      } catch {
        missedBeats += 1;
        if (missedBeats === 2 * silenceMax) connection.disconnect(true);
      }
    },
  };
}

/** Reads a URL; ioredis knows `redis://` and `rediss://`, the one for sentinels is ours. */
function addressOf(url: string): RedisOptions {
  const sentinel = /^redis\+sentinel:\/\/(?:([^@/]*)@)?([^/]+)\/([^/?]+)(?:\/(\d+))?$/.exec(url);
  if (sentinel === null) return singleAddressOf(url);
  const [, credentials = "", hosts = "", name = "", db = "0"] = sentinel;
  const [username = "", password = ""] = credentials.split(":").map(decodeURIComponent);
  return {
    sentinels: hosts.split(",").map((address) => {
      const [host = "", port = "26379"] = address.split(/:(?=\d+$)/);
      return { host, port: Number(port) };
    }),
    name,
    db: Number(db),
    ...(username === "" ? {} : { username }),
    ...(password === "" ? {} : { password }),
  };
}

function singleAddressOf(url: string): RedisOptions {
  const { protocol, hostname, port, username, password, pathname } = new URL(url);
  if (protocol !== "redis:" && protocol !== "rediss:") throw new OperatingError("bad_redis_url");
  return {
    host: hostname.replace(/^\[|\]$/g, ""),
    port: Number(port || 6379),
    db: Number(pathname.slice(1) || 0),
    ...(username === "" ? {} : { username: decodeURIComponent(username) }),
    ...(password === "" ? {} : { password: decodeURIComponent(password) }),
    ...(protocol === "rediss:" ? { tls: {} } : {}),
  };
}
