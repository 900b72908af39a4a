// A worker that behaves as its instance id says, for the supervisor's tests.
import { Counter } from "prom-client";
import { OperatingError } from "../../src/model/errors.ts";
import { runWorker } from "../../src/platform/channel.ts";

runWorker("redis-backfill", async ({ instanceId, watchdogs, report }) => {
  const stop = () => (instanceId === "stubborn" ? new Promise<void>(() => {}) : Promise.resolve());
  switch (instanceId) {
    case "failing":
      throw new OperatingError("shards_mismatch");
    case "rejecting":
      setTimeout(() => void Promise.reject(new Error("nobody catches this")), 20);
      break;
    case "exiting":
      setTimeout(() => process.exit(0), 20);
      break;
    case "hanging":
      watchdogs.watch(10);
      break;
    case "spinning":
      setTimeout(() => {
        for (;;);
      }, 20);
      break;
    case "counting":
      new Counter({ name: "test_total", help: "A test's." }).inc(7);
      break;
    case "degraded":
      report("redis", "degraded");
  }
  return { stop };
});
