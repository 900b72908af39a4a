/** A Redis server of one's own, from the system's package. It holds nothing that Postgres does not, so it saves nothing. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { requireProgram } from "./packages.ts";
import { choosePorts } from "./ports.ts";
import { startServerProcess, untilReady } from "./process.ts";
import type { RunningServer, ServerOptions } from "./services.ts";

/** Starts Redis with its files in `{dataDirectory}/redis`, and resolves once it answers. */
export async function startRedis(options: ServerOptions): Promise<RunningServer> {
  const program = await requireProgram("redis", options);
  const directory = join(options.dataDirectory, "redis");
  mkdirSync(directory, { recursive: true });
  const [port = 0] = await choosePorts(join(directory, "ports.json"), [options.anyPort ? 0 : 6379]);
  options.report("Redis: starting");
  const command = [program, "--bind", "127.0.0.1", "--port", String(port), "--dir", directory];
  const server = await startServerProcess({
    name: "redis",
    command: [...command, "--save", "", "--appendonly", "no", "--daemonize", "no"],
    directory,
    stopSignal: "SIGTERM",
  });
  const stop = (signal?: NodeJS.Signals) => server.stop(5_000, signal);
  try {
    await untilReady(server, {
      name: "Redis",
      deadlineMs: 10_000,
      signal: options.signal,
      probe: () => answersPing(port),
    });
  } catch (error) {
    await stop();
    throw error;
  }
  options.report(`Redis: ready on port ${port}`);
  return { url: `redis://127.0.0.1:${port}`, pid: server.pid, stop };
}

function answersPing(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    Bun.connect({
      hostname: "127.0.0.1",
      port,
      socket: {
        open: (socket) => void socket.write("PING\r\n"),
        data: (socket, reply) => {
          resolve(reply.toString().startsWith("+PONG"));
          socket.end();
        },
        close: () => resolve(false),
      },
    }).catch(() => resolve(false));
  });
}
