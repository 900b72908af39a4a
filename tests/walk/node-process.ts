// A node as it runs outside tests: a process of its own, configured by its environment, ended by a signal.
import type { Config } from "../../src/config.ts";
import { startCli } from "../support/cli.ts";

/** A running process. */
export interface NodeProcess extends AsyncDisposable {
  url: string;
  pid: number;
  /** All that it has logged so far. */
  logged(): string;
  /** Its code, once it has ended. */
  exited: Promise<number>;
  /** SIGTERM; what became of it. */
  stop(): Promise<{ code: number; durationMs: number }>;
}

const startMsMax = 20_000;

/** Starts `serve` with a configuration, of which `changes` are other; resolves when it listens. */
export async function startNode(
  config: Config,
  changes: Record<string, string> = {},
  args: string[] = [],
): Promise<NodeProcess> {
  const child = startCli(["serve", ...args], { env: { ...environmentOf(config), PORT: "0", ...changes } });
  const listening = Promise.withResolvers<string>();
  const said = keep(child.stderr, (text) => {
    const [, url] = /Chat4All is at (\S+)/.exec(text) ?? [];
    if (url !== undefined) listening.resolve(url);
  });
  const logged = keep(child.stdout);
  const fail = (why: string) => {
    child.kill("SIGKILL");
    listening.reject(new Error(`${why}: ${said()}${logged()}`));
  };
  const timer = setTimeout(() => fail(`serve does not listen in ${startMsMax} ms`), startMsMax);
  void child.exited.then((code) => fail(`serve ended with ${code}`));

  return {
    url: await listening.promise.finally(() => clearTimeout(timer)),
    pid: child.pid,
    logged,
    exited: child.exited,
    async stop() {
      const startedAtMs = performance.now();
      child.kill("SIGTERM");
      const code = await child.exited;
      return { code, durationMs: performance.now() - startedAtMs };
    },
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await child.exited;
    },
  };
}

/** The environment that reads as this configuration. */
function environmentOf(config: Config): Record<string, string> {
  return Object.fromEntries(
    Object.entries(config).map(([name, value]) => [
      name,
      Array.isArray(value) ? value.join(",") : String(value),
    ]),
  );
}

/** Keeps all that comes, and answers it. */
function keep(stream: ReadableStream<Uint8Array>, onText?: (text: string) => void): () => string {
  let text = "";
  void (async () => {
    const decoder = new TextDecoder();
    for await (const chunk of stream) {
      text += decoder.decode(chunk, { stream: true });
      onText?.(text);
    }
  })();
  return () => text;
}
