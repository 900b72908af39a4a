// What is done on the way between the instances and what they use.
import { delayBy, dropAnswers, type FaultProxy, holdAll, passAll } from "../../support/fault-proxy.ts";
import type { FaultKind } from "../faults.ts";
import type { StageParts } from "../stage.ts";

const durationMs = [1_000, 6_000] as const;
const delaysMs = [50, 500, 150, 300];

/** One instance's way to Postgres or Redis, the way of all to all brokers, and that to one broker. */
export function networkFaults({ instances, proxies }: StageParts): FaultKind[] {
  const ofInstances = instances.flatMap(({ name }, index) => [
    ...wayFaults(`${name} to postgres`, "postgres", proxies.postgres.slice(index, index + 1)),
    ...wayFaults(`${name} to redis`, "redis", proxies.redis.slice(index, index + 1)),
  ]);
  const ofBrokers = proxies.kafka.flatMap((proxy, index) =>
    wayFaults(`way to kafka-${index + 1}`, "one broker", [proxy], "way to kafka"),
  );
  const ofAll = wayFaults("way to kafka", "kafka", proxies.kafka, "way to kafka");
  return [...ofInstances, ...ofAll, ...(proxies.kafka.length > 1 ? ofBrokers : [])];
}

function wayFaults(
  way: string,
  toWhat: string,
  proxies: readonly FaultProxy[],
  target: string = way,
): FaultKind[] {
  const kind = (how: string, begin: (proxy: FaultProxy) => void, end: (proxy: FaultProxy) => void) => ({
    name: `${way} ${how}`,
    group: "network" as const,
    what: `way to ${toWhat} ${how}`,
    target,
    durationMs,
    begin: async () => proxies.forEach(begin),
    end: async () => proxies.forEach(end),
  });
  let delays = 0;
  let release = () => {};
  return [
    kind(
      "cut",
      (proxy) => {
        proxy.isRefusing = true;
        proxy.endConnections("reset");
      },
      (proxy) => (proxy.isRefusing = false),
    ),
    kind(
      "delayed",
      (proxy) => (proxy.fault = delayBy(delaysMs[delays++ % delaysMs.length] ?? 0)),
      (proxy) => (proxy.fault = passAll),
    ),
    // As TCP has it: what was sent meanwhile arrives in the end, long after its sender gave it up perhaps.
    kind(
      "black hole",
      (proxy) => {
        const held = holdAll();
        const releaseEarlier = release;
        release = () => {
          releaseEarlier();
          held.release();
        };
        proxy.fault = held.fault;
      },
      (proxy) => {
        proxy.fault = passAll;
        release();
      },
    ),
    // What is lost does not come any more: connections that miss it end with the fault.
    kind(
      "answers lost",
      (proxy) => (proxy.fault = dropAnswers),
      (proxy) => {
        if (proxy.fault !== dropAnswers) return;
        proxy.fault = passAll;
        proxy.endConnections("reset");
      },
    ),
  ];
}
