// One node as a process, as `chat4all serve` runs it, that also obeys a test: commands come as JSON by POST to
// CHAOS_CONTROL_PORT of the loopback address.
import { type Command, installSeam, openCommander } from "./seam.ts";

installSeam();
// Loaded only now, so that the seam can have changed it.
const { readConfig } = await import("../../src/config.ts");
const { OperatingError } = await import("../../src/model/errors.ts");
const { serve } = await import("../../src/serve.ts");

const stop = Promise.withResolvers<void>();
process.on("SIGTERM", () => stop.resolve());

// Nobody is left who would end it.
const parent = process.ppid;
setInterval(() => {
  if (process.ppid !== parent) process.exit(1);
}, 1_000).unref();

const command = openCommander();
Bun.serve({
  hostname: "127.0.0.1",
  port: Number(process.env["CHAOS_CONTROL_PORT"]),
  reusePort: false,
  async fetch(request) {
    command((await request.json()) as Command);
    return new Response(null, { status: 204 });
  },
});

try {
  const config = readConfig();
  const programOf = (name: string) => new URL(`./instance-worker-${name}.ts`, import.meta.url);
  const server = await Promise.race([serve(config, { programOf }), stop.promise]);
  if (server !== undefined) {
    await stop.promise;
    const late = setTimeout(() => fail("the drain did not end"), config.DRAIN_MS + 2_000);
    await server.drain();
    clearTimeout(late);
  }
  process.exit(0);
} catch (error) {
  if (!(error instanceof OperatingError)) throw error;
  fail(error.message);
}

function fail(why: string): never {
  console.error(why);
  process.exit(1);
}
