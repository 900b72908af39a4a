// The one file through which Redis is reached. Redis is never in the durability path, so nothing here may make
// anybody wait: a command answers within `commandTimeoutMs` or fails, a circuit breaker fails it at once while Redis
// is away, publishing is fire and forget within a bound, and a connection that does not answer is replaced.
import { type RedisOptions as AllOptions, Redis as Connection } from "ioredis";
import { OperatingError } from "../model/errors.ts";
import { type CircuitState, openCircuit } from "./circuit.ts";
import type { Log } from "./log.ts";

/** How to reach Redis. */
export interface RedisSettings {
  /** `redis://`, `rediss://` or `redis+sentinel://[user:password@]host:port[,host:port]/name[/db]`. */
  url: string;
  /** First part of each key's and channel's name; callers of the functions below leave it out. */
  prefix: string;
  log: Log;
}

// `replyMapping` is left out: its type does not go with exactOptionalPropertyTypes.
type RedisOptions = Omit<AllOptions, "replyMapping">;

/** How Redis stands: `degraded` while it is away or silent. */
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
  /** Whether commands reach Redis: `open` fails them all at once, `half_open` lets one try. */
  circuitState(): CircuitState;
  onStateChange(listener: (state: RedisState) => void): void;
  /** The value of a key. Rejects with OperatingError `redis_unavailable`, as all commands do. */
  get(key: string): Promise<string | null>;
  set(key: string, value: string, lifetimeMs: number): Promise<void>;
  /** Runs a Lua script; `keys` get the prefix. */
  evaluate(script: string, keys: readonly string[], args: readonly (string | number)[]): Promise<unknown>;
  /** Publishes, without waiting and without an answer; false when dropped, since Redis is away or behind. */
  publish(messages: readonly ChannelMessage[]): boolean;
  /** How many connections listen to a channel. */
  countListeners(channel: string): Promise<number>;
  /** Sets who hears the channels; once. */
  hear(listener: ChannelListener): void;
  listen(channel: string): void;
  unlisten(channel: string): void;
  close(): Promise<void>;
}

const commandTimeoutMs = 100;
const channelTimeoutMs = 1000;
const pingIntervalMs = 250;
const missedBeatsMax = 3;
const missedBeatsToReplace = 8;
const circuitSettings = { failuresToOpen: 3, halfOpenAfterMs: 500 };
/** Characters on their way to Redis; beyond that it is behind, and messages are dropped. */
const unansweredCharactersMax = 16 * 1024 * 1024;

/** Opens both connections in the background; commands fail until they are there. */
export function openRedis({ url, prefix, log }: RedisSettings): Redis {
  const commands = connect(url, { commandTimeout: commandTimeoutMs });
  const channels = connect(url, { commandTimeout: channelTimeoutMs, autoResubscribe: false });
  const circuit = openCircuit(circuitSettings);
  const run = async <T>(command: () => Promise<T>): Promise<T> => {
    try {
      return await circuit.run(command);
    } catch (cause) {
      throw new OperatingError("redis_unavailable", { cause });
    }
  };
  const commandsPulse = pulseOf(commands, () => run(() => commands.ping()));
  const pulses = [commandsPulse, pulseOf(channels, () => channels.ping())];
  const watch = watchState(pulses, log);

  const close = async () => {
    watch.close();
    for (const pulse of pulses) pulse.close();
    commands.disconnect();
    channels.disconnect();
  };

  return {
    state: watch.state,
    onStateChange: watch.onStateChange,
    circuitState: circuit.state,
    get: (key) => run(() => commands.get(prefix + key)),
    async set(key, value, lifetimeMs) {
      await run(() => commands.set(prefix + key, value, "PX", lifetimeMs));
    },
    evaluate: (script, keys, args) =>
      run(() => commands.eval(script, keys.length, ...keys.map((key) => prefix + key), ...args)),
    async countListeners(channel) {
      const [, count] = await run(() => commands.pubsub("NUMSUB", prefix + channel));
      return Number(count);
    },
    publish: openPublish(commands, commandsPulse, prefix),
    ...openHearing(channels, prefix),
    close,
    [Symbol.asyncDispose]: close,
  };
}

// A connection that is silent gets nothing more to buffer: a command's timeout does not take back what was written.
function openPublish(connection: Connection, pulse: Pulse, prefix: string): Redis["publish"] {
  let unansweredCharacters = 0;
  return (messages) => {
    if (!pulse.isBeating() || unansweredCharacters > unansweredCharactersMax) return false;
    const pipeline = connection.pipeline();
    let characters = 0;
    for (const { channel, text } of messages) {
      characters += text.length;
      pipeline.publish(prefix + channel, text);
    }
    unansweredCharacters += characters;
    const answered = () => {
      unansweredCharacters -= characters;
    };
    pipeline.exec().then(answered, answered);
    return true;
  };
}

// Subscribes again by itself after each reconnection, so that `listening` tells when it is heard again.
function openHearing(connection: Connection, prefix: string): Pick<Redis, "hear" | "listen" | "unlisten"> {
  const listened = new Set<string>();
  let listener: ChannelListener | undefined;
  const subscribe = (channels: readonly string[]) => {
    if (channels.length === 0 || connection.status !== "ready") return;
    connection.subscribe(...channels.map((channel) => prefix + channel)).then(
      () => listener?.listening(channels),
      () => connection.disconnect(true),
    );
  };
  connection.on("ready", () => subscribe([...listened]));
  connection.on("message", (channel, text) => listener?.message(channel.slice(prefix.length), text));
  return {
    hear(theListener) {
      listener = theListener;
    },
    listen(channel) {
      listened.add(channel);
      subscribe([channel]);
    },
    unlisten(channel) {
      listened.delete(channel);
      if (connection.status === "ready")
        connection.unsubscribe(prefix + channel).catch(() => connection.disconnect(true));
    },
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

/** Whether a connection answers. */
interface Pulse {
  isBeating(): boolean;
  onChange(listener: () => void): void;
  close(): void;
}

// Pings a connection, and replaces it when it stays silent: a peer that is gone without a word (a paused host, a cut
// cable) never closes it.
function pulseOf(connection: Connection, ping: () => Promise<unknown>): Pulse {
  let missedBeats = missedBeatsMax;
  let isAsking = false;
  let tell: () => void = () => undefined;
  const miss = () => {
    missedBeats += 1;
    if (missedBeats % missedBeatsToReplace === 0) connection.disconnect(true);
  };
  const beat = async () => {
    if (connection.status !== "ready") {
      missedBeats = missedBeatsMax;
      return tell();
    }
    // A ping that is still under way at the next beat counts: it may last longer than anybody should wait.
    if (isAsking) {
      miss();
      return tell();
    }
    isAsking = true;
    try {
      await ping();
      missedBeats = 0;
    } catch {
      miss();
    }
    isAsking = false;
    tell();
  };
  const timer = setInterval(() => void beat(), pingIntervalMs);
  connection.on("ready", () => void beat());
  connection.on("close", () => void beat());
  return {
    isBeating: () => connection.status === "ready" && missedBeats < missedBeatsMax,
    onChange(listener) {
      tell = listener;
    },
    close: () => clearInterval(timer),
  };
}

function watchState(pulses: readonly Pulse[], log: Log) {
  const listeners: ((state: RedisState) => void)[] = [];
  let state: RedisState = "degraded";
  let isClosed = false;
  const look = () => {
    const seen = pulses.every((pulse) => pulse.isBeating()) ? "up" : "degraded";
    if (seen === state || isClosed) return;
    state = seen;
    log[state === "up" ? "info" : "warn"]({ state }, "redis");
    for (const tell of listeners) tell(state);
  };
  for (const pulse of pulses) pulse.onChange(look);
  return {
    state: () => state,
    onStateChange: (listener: (state: RedisState) => void) => void listeners.push(listener),
    close() {
      isClosed = true;
    },
  };
}

/** Reads a URL; ioredis knows `redis://` and `rediss://`, the one for sentinels is ours. */
function addressOf(url: string): RedisOptions {
  const sentinel = /^redis\+sentinel:\/\/(?:([^@/]*)@)?([^/]+)\/([^/?]+)(?:\/(\d+))?$/.exec(url);
  if (sentinel === null) return singleAddressOf(url);
  const [, credentials = "", hosts = "", name = "", db = "0"] = sentinel;
  const [username = "", password = ""] = credentials.split(":").map((part) => decodeURIComponent(part));
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
