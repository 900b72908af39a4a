// One load on a node, from a process of its own (open-loop.ts), judged by what was stored of it.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Postgres } from "../src/platform/postgres.ts";
import { Histogram } from "./histogram.ts";
import type { LoadReport } from "./open-loop.ts";
import type { Bench } from "./prepare.ts";

/** One load on the node, and what the node did meanwhile. */
export interface Measurement extends LoadReport {
  healthP99Ms: number;
  healthMaxMs: number;
  rssMiB: number;
}

const probeIntervalMs = 50;

/** Runs one load, on one core if that is given, and judges what was stored of it. */
export async function measure(
  { postgres, server, ids, token }: Bench,
  { core, ...load }: { rate: number; seconds: number; connections: number; core?: number | undefined },
  onSecond?: (report: LoadReport, setRate: (rate: number) => void) => Promise<void>,
): Promise<Measurement> {
  const runId = Buffer.from(crypto.getRandomValues(new Uint8Array(4))).toString("hex");
  const args = Object.entries(load).flatMap(([name, value]) => [`--${name}`, String(value)]);
  const onCore = core === undefined ? [] : ["taskset", "--cpu-list", String(core)];
  const child = Bun.spawn(
    [...onCore, process.execPath, join(import.meta.dir, "open-loop.ts"), "--url", server.url, ...args],
    {
      env: { ...process.env, TOKEN: token, IDS: ids, RUN: runId },
      stdin: "pipe",
      stdout: "pipe",
      stderr: "inherit",
    },
  );
  const setRate = (rate: number) => {
    void child.stdin.write(`${Math.round(rate)}\n`);
    void child.stdin.flush();
  };
  const health = probe(server.url);
  let last: LoadReport | undefined;
  for await (const line of linesOf(child.stdout)) {
    if (last !== undefined) await onSecond?.(last, setRate);
    last = JSON.parse(line);
  }
  const { p99Ms, maxMs } = await health.stop();
  if ((await child.exited) !== 0 || last === undefined) throw new Error("the load failed");
  if (last.failed > 0) throw new Error(`${last.failed} requests were neither accepted nor refused`);
  await judge(postgres, runId, last);
  return { ...last, healthP99Ms: p99Ms, healthMaxMs: maxMs, rssMiB: await rssOf(server.pid) };
}

// All that was sent was answered: what is stored is exactly what was accepted.
async function judge(
  postgres: Postgres,
  runId: string,
  { accepted, acceptedSum }: LoadReport,
): Promise<void> {
  const [stored] = await postgres.query<{ count: number; sum: number }>(
    `select count(*) as count, coalesce(sum(('x' || right(message_id::text, 12))::bit(48)::bigint), 0)::bigint as sum
     from messages where message_id between $1::uuid and $2::uuid`,
    [`${runId}-0000-0000-0000-000000000000`, `${runId}-ffff-ffff-ffff-ffffffffffff`],
  );
  if (stored?.count !== accepted || stored.sum !== acceptedSum) {
    throw new Error(`${accepted} accepted, ${stored?.count} stored; sums ${acceptedSum} and ${stored?.sum}`);
  }
}

/** Asks for /healthz again and again: it needs nothing but a turn of the node's event loop. */
function probe(url: string) {
  const times = new Histogram();
  let isOver = false;
  const done = (async () => {
    while (!isOver) {
      const askedAtMs = performance.now();
      await (await fetch(`${url}/healthz`)).text();
      times.note(performance.now() - askedAtMs);
      await Bun.sleep(probeIntervalMs);
    }
  })();
  return {
    async stop() {
      isOver = true;
      await done;
      return { p99Ms: times.quantile(0.99), maxMs: times.quantile(1) };
    },
  };
}

/** Resident memory of a process, in MiB. */
export async function rssOf(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) / 1024;
}

async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of stream) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
  }
}

/** The middle one of some figures. */
export function median(figures: number[]): number {
  const sorted = figures.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1
    ? (sorted[middle] ?? 0)
    : ((sorted[middle - 1] ?? 0) + (sorted[middle] ?? 0)) / 2;
}
