// What a start finds on disk after an earlier run: a claim, a server that still runs, ports.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { claimDirectory, InUse } from "../../deploy/local/claim.ts";
import { recordedProcess, recordProcess } from "../../deploy/local/pid.ts";
import { choosePorts } from "../../deploy/local/ports.ts";
import { startServerProcess, stopLeftovers } from "../../deploy/local/process.ts";

let directory = "";

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "chat4all-local-"));
});
afterAll(() => rmSync(directory, { recursive: true }));

/** A server that says so when it is ready; with `ignoringSigterm` only SIGKILL ends it. */
async function startSleeper(name: string, options: { ignoringSigterm?: boolean } = {}) {
  const trap = options.ignoringSigterm ? "trap '' TERM; " : "";
  const command = ["sh", "-c", `${trap}echo ready; while :; do sleep 0.05; done`];
  const server = await startServerProcess({ name, command, directory, stopSignal: "SIGTERM" });
  while (!server.lastOutput().includes("ready")) await Bun.sleep(5);
  return server;
}

describe("a recorded process", () => {
  test("is known while it runs, and not after its end", async () => {
    const file = join(directory, "recorded");
    const server = await startSleeper("recorded");
    recordProcess(file, server.pid, "SIGTERM");
    expect(recordedProcess(file)?.pid).toBe(server.pid);
    await server.stop(5_000);
    expect(recordedProcess(file)).toBeUndefined();
  });

  test("is not taken for a later one that was given its pid", () => {
    const file = join(directory, "reused");
    recordProcess(file, process.pid, "SIGTERM");
    const record = JSON.parse(readFileSync(file, "utf8")) as object;
    writeFileSync(file, JSON.stringify({ ...record, started: "an earlier moment" }));
    expect(recordedProcess(file)).toBeUndefined();
  });

  test("is nobody when a crash cut the file off", () => {
    const file = join(directory, "cut-off");
    writeFileSync(file, '{"pid": 1');
    expect(recordedProcess(file)).toBeUndefined();
  });
});

describe("a server process", () => {
  test("that an earlier run left behind is stopped by the next", async () => {
    const left = await startSleeper("left");
    await stopLeftovers(directory);
    expect(await left.exited).not.toBe(0);
    expect(left.isRunning()).toBe(false);
  });

  test("that ignores the request to stop is killed when its time is up", async () => {
    const deaf = await startSleeper("deaf", { ignoringSigterm: true });
    await deaf.stop(100);
    expect(deaf.isRunning()).toBe(false);
  });
});

describe("a data directory", () => {
  test("has one owner at a time, whose pid the second one is told", async () => {
    const owner = Bun.spawn(["sleep", "60"]);
    recordProcess(join(directory, "in-use"), owner.pid, "SIGTERM");
    expect(() => claimDirectory(directory)).toThrow(InUse);
    expect(claimError(directory)?.pid).toBe(owner.pid);
    owner.kill("SIGKILL");
    await owner.exited;
    const release = claimDirectory(directory);
    expect(claimError(directory)?.pid).toBe(process.pid);
    release();
    claimDirectory(directory)();
  });
});

describe("ports", () => {
  test("are the same at the next start, unless taken meanwhile", async () => {
    const file = join(directory, "ports.json");
    const [first = 0, second = 0] = await choosePorts(file, [0, 0]);
    expect(await choosePorts(file, [0, 0])).toEqual([first, second]);
    using taken = Bun.listen({ hostname: "127.0.0.1", port: first, socket: { data: () => undefined } });
    const [replaced, kept] = await choosePorts(file, [0, 0]);
    expect(replaced).not.toBe(taken.port);
    expect(kept).toBe(second);
  });

  test("are the usual ones only where those are free", async () => {
    using taken = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data: () => undefined } });
    const [port] = await choosePorts(join(directory, "usual.json"), [taken.port]);
    expect(port).not.toBe(taken.port);
  });
});

function claimError(path: string): InUse | undefined {
  try {
    claimDirectory(path);
  } catch (error) {
    if (error instanceof InUse) return error;
  }
  return undefined;
}
