// A Redis of a test's own, to be stopped, started again empty, and paused.
import { until } from "../support/until.ts";

/** A Redis server on a port that it keeps. */
export class OwnRedis implements AsyncDisposable {
  readonly url: string;
  readonly #port: number;
  #process: Bun.Subprocess | undefined;

  constructor() {
    const probe = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data: () => undefined } });
    this.#port = probe.port;
    probe.stop(true);
    this.url = `redis://127.0.0.1:${this.#port}`;
  }

  /** Starts it, empty; resolves when it answers. */
  async start(): Promise<void> {
    const options = ["--bind", "127.0.0.1", "--port", String(this.#port), "--save", "", "--appendonly", "no"];
    this.#process = Bun.spawn(["redis-server", ...options, "--dir", "/tmp"], {
      stdout: "ignore",
      stderr: "ignore",
    });
    await until(() => this.#answers(), "Redis answers");
  }

  /** Ends it without a word to its clients. */
  async kill(): Promise<void> {
    this.#process?.kill("SIGKILL");
    await this.#process?.exited;
  }

  /** Stops it in the middle of whatever it does: connections stay open, nothing is answered. */
  pause(): void {
    this.#process?.kill("SIGSTOP");
  }

  resume(): void {
    this.#process?.kill("SIGCONT");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.resume();
    await this.kill();
  }

  async #answers(): Promise<boolean> {
    const { promise, resolve } = Promise.withResolvers<boolean>();
    Bun.connect({
      hostname: "127.0.0.1",
      port: this.#port,
      socket: {
        open: (socket) => void socket.write("PING\r\n"),
        data(socket, reply) {
          resolve(reply.toString().startsWith("+PONG"));
          socket.end();
        },
        close: () => resolve(false),
      },
    }).catch(() => resolve(false));
    return await promise;
  }
}
