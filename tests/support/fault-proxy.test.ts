import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { connect, type Socket } from "node:net";
import {
  delayBy,
  dropAll,
  dropAnswers,
  type Fault,
  type FaultProxy,
  holdAll,
  once,
  passAll,
  startFaultProxy,
  type Unit,
} from "./fault-proxy.ts";
import { until } from "./until.ts";

const arrived: string[] = [];
const echo = Bun.listen({
  hostname: "127.0.0.1",
  port: 0,
  socket: {
    data(socket, bytes) {
      arrived.push(bytes.toString());
      socket.write(bytes);
    },
  },
});
let proxy: FaultProxy;

beforeAll(async () => {
  proxy = await startFaultProxy({ target: echo.port });
});
afterEach(() => {
  // What is still on its way through them would meet the next test's fault.
  proxy.endConnections("close");
  proxy.fault = passAll;
  proxy.isRefusing = false;
  arrived.length = 0;
});
afterAll(async () => {
  await proxy.stop();
  echo.stop(true);
});

describe("a fault proxy", () => {
  test("passes both ways", async () => {
    const client = await dial();
    client.write("one");
    expect(await next(client)).toBe("one");
  });

  test("drops answers only, or everything, until it is healed", async () => {
    const client = await dial();
    const answer = next(client);
    const everything = watched(dropAll, "request");
    proxy.fault = everything.fault;
    client.write("one");
    await everything.struck;
    const answers = watched(dropAnswers, "answer");
    proxy.fault = answers.fault;
    client.write("two");
    await answers.struck;
    proxy.fault = passAll;
    client.write("three");
    expect(await answer).toBe("three");
    expect(arrived).toEqual(["two", "three"]);
  });

  test("delays", async () => {
    const client = await dial();
    proxy.fault = delayBy(50);
    const startedAtMs = performance.now();
    client.write("one");
    expect(await next(client)).toBe("one");
    expect(performance.now() - startedAtMs).toBeGreaterThan(95);
  });

  test("delays what comes together by no more than what comes alone", async () => {
    const client = await dial();
    proxy.fault = delayBy(100);
    const startedAtMs = performance.now();
    for (const number of [1, 2, 3, 4, 5]) {
      client.write(String(number));
      await Bun.sleep(10);
    }
    let got = "";
    while (got !== "12345") got += await next(client);
    // Five of them one after the other would take a second.
    expect(performance.now() - startedAtMs).toBeLessThan(700);
  });

  test("holds everything, of which it reads a bounded part, and lets go of all of it in order", async () => {
    const client = await dial();
    const held = holdAll();
    proxy.fault = held.fault;
    const sent = Buffer.alloc(16 * 1024 * 1024, "0123456789");
    client.on("data", () => undefined);
    client.write(sent);
    await until(() => client.bytesWritten > 1024 * 1024, "the proxy reads");
    // Time enough to read all of it, if it did not stop.
    await Bun.sleep(100);
    expect(client.writableLength).toBeGreaterThan(0);
    expect(arrived).toBeEmpty();
    proxy.fault = passAll;
    held.release();
    await until(() => arrived.reduce((sum, text) => sum + text.length, 0) === sent.length, "all has arrived");
    expect(arrived.join("") === sent.toString()).toBe(true);
  });

  test("ends one connection at the unit that was chosen, in place of passing it on", async () => {
    for (const how of ["close", "reset"] as const) {
      const client = await dial();
      const { fault, struck } = once("answer", "chunk", how);
      proxy.fault = fault;
      const end = ended(client);
      client.write(how);
      await struck;
      expect(await end).toBe(how === "reset" ? "ECONNRESET" : "end");
    }
    expect(arrived).toEqual(["close", "reset"]);
  });

  test("passes other bytes on in place of a unit", async () => {
    const client = await dial();
    proxy.fault = once("answer", "chunk", Buffer.from("other")).fault;
    client.write("one");
    expect(await next(client)).toBe("other");
  });

  test("refuses new connections and ends open ones", async () => {
    const open = await dial();
    open.write("one");
    await next(open);
    const end = ended(open);
    proxy.isRefusing = true;
    proxy.endConnections("reset");
    expect(await end).toBe("ECONNRESET");
    const refused = connect({ host: "127.0.0.1", port: proxy.port });
    expect(await ended(refused)).toBe("ECONNRESET");
  });
});

async function dial(): Promise<Socket> {
  const socket = connect({ host: "127.0.0.1", port: proxy.port });
  socket.on("error", () => undefined);
  await new Promise((resolve) => socket.once("connect", resolve));
  return socket;
}

function next(socket: Socket): Promise<string> {
  return new Promise((resolve) => socket.once("data", (bytes) => resolve(bytes.toString())));
}

/** How the connection ended: `end`, or the error's code. */
function ended(socket: Socket): Promise<string> {
  return new Promise((resolve) => {
    socket.once("end", () => resolve("end"));
    socket.once("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
  });
}

/** The fault, and a promise that resolves when it has struck a unit of that direction. */
function watched(fault: Fault, direction: Unit["direction"]) {
  const struck = Promise.withResolvers<void>();
  const watching: Fault = (unit) => {
    if (unit.direction === direction) struck.resolve();
    return fault(unit);
  };
  return { fault: watching, struck: struck.promise };
}
