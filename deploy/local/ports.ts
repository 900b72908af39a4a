/** Ports on the loopback address: the usual one where it is free, else another, and the same again at the next start. */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";

/**
 * Free ports, in the order of `preferred` (0: no preference). `file` remembers them from one start to the next;
 * one that is taken meanwhile is replaced.
 */
export async function choosePorts(file: string, preferred: readonly number[]): Promise<number[]> {
  const remembered = existsSync(file) ? (JSON.parse(readFileSync(file, "utf8")) as number[]) : [];
  const chosen: number[] = [];
  for (const [index, wanted] of preferred.entries()) {
    const candidates = [remembered[index] ?? 0, wanted].filter(
      (port) => port !== 0 && !chosen.includes(port),
    );
    chosen.push((await firstFree(candidates)) ?? (await anyFreePort()));
  }
  writeFileSync(file, JSON.stringify(chosen));
  return chosen;
}

/** Whether nobody listens on `port` of the loopback address. */
export function isPortFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(false));
    server.listen({ port, host: "127.0.0.1", exclusive: true }, () => server.close(() => resolve(true)));
  });
}

async function firstFree(candidates: readonly number[]): Promise<number | undefined> {
  for (const port of candidates) if (await isPortFree(port)) return port;
  return undefined;
}

/** Below the range from which the system takes ports of outgoing connections, so that none takes it before the server does. */
async function anyFreePort(): Promise<number> {
  for (;;) {
    const port = 20_000 + Math.floor(Math.random() * 12_000);
    if (await isPortFree(port)) return port;
  }
}
