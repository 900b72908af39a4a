// Planned faults come in one by one, and befall the brokers or the proxies before them; each ends by itself.
// Brokers are asked to move leaders directly, so that no fault of the proxies keeps another one from happening.

import { pause } from "../../src/platform/pause.ts";
import { type Fault, passAll, type Unit } from "../support/fault-proxy.ts";
import type { ProxiedCluster } from "../support/kafka-cluster.ts";
import { electPreferredLeaders, reassign } from "../support/kafka-request.ts";
import type { FaultKind, PlannedFault } from "./schedule.ts";

/** What injects; `inject` resolves when the fault is over. It rejects when it could not be done. */
export interface Injector {
  inject(fault: PlannedFault): Promise<void>;
}

const answerDelayMs = 700;
const reassignedMs = 1_000;
/** From the moment that one broker's answers are held back to that at which another one's are lost. */
const heldBeforeMs = 150;
const lostMs = 400;

/** Faults of the proxies add up: a unit gets the first verdict that is not to pass. */
export function openInjector(
  cluster: ProxiedCluster,
  topics: readonly string[],
  signal: AbortSignal,
): Injector {
  const active = new Map<number, Set<Fault>>();
  let awayId = 0;
  let lastOutage = Promise.resolve();
  for (const { id } of cluster.brokers) {
    const faults = new Set<Fault>();
    active.set(id, faults);
    cluster.proxyOf(id).fault = async (unit) => {
      for (const fault of faults) {
        const verdict = await fault(unit);
        if (verdict !== "pass") return verdict;
      }
      return passAll(unit);
    };
  }

  async function harm(brokerId: number, fault: Fault, durationMs: number) {
    active.get(brokerId)?.add(fault);
    await pause(durationMs, signal);
    active.get(brokerId)?.delete(fault);
  }

  /** One broker at a time, for two of the three must be there; one that comes later waits. */
  function takeAway(
    brokerId: number,
    leave: () => Promise<void>,
    comeBack: () => Promise<void>,
    durationMs: number,
  ) {
    const outage = lastOutage.then(async () => {
      if (signal.aborted) return;
      awayId = brokerId;
      try {
        await leave();
        await pause(durationMs, signal);
      } finally {
        await comeBack();
        awayId = 0;
      }
    });
    lastOutage = outage.catch(() => {});
    return outage;
  }

  async function elect({ brokers, partitions }: PlannedFault) {
    const port = portToAsk();
    for (const topic of topics) {
      await reassign(port, topic, orders(brokers, partitions));
      await electPreferredLeaders(port, topic, partitions);
    }
  }

  async function reassignOutAndBack({ brokers, partitions }: PlannedFault) {
    const assign = async (replicaCount: number) => {
      for (const topic of topics) {
        const replicas = brokers.slice(0, replicaCount);
        await reassign(
          portToAsk(),
          topic,
          partitions.map((partition) => ({ partition, replicas })),
        );
      }
    };
    await assign(2);
    await pause(reassignedMs, signal);
    await assign(3);
  }

  function portToAsk(): number {
    return cluster.brokers.find(({ id }) => id !== awayId)?.port ?? 0;
  }

  const injectors: Record<FaultKind, (fault: PlannedFault) => Promise<void>> = {
    kill({ brokers: [id], durationMs }) {
      const broker = cluster.brokers[id - 1];
      return takeAway(
        id,
        async () => broker?.kill(),
        async () => broker?.start(),
        durationMs,
      );
    },
    pause({ brokers: [id], durationMs }) {
      const signalIt = async (name: NodeJS.Signals) =>
        void process.kill(cluster.brokers[id - 1]?.pid ?? 0, name);
      return takeAway(
        id,
        () => signalIt("SIGSTOP"),
        () => signalIt("SIGCONT"),
        durationMs,
      );
    },
    elect,
    reassign: reassignOutAndBack,
    drop_answers: ({ brokers: [id], durationMs }) => harm(id, ofAnswers("produce", "drop"), durationMs),
    reset_answers: ({ brokers: [id], durationMs }) => harm(id, ofAnswers("produce", "reset"), durationMs),
    delay_answers: ({ brokers: [id], durationMs }) => harm(id, late("produce", answerDelayMs), durationMs),
    delay_metadata: ({ brokers: [id], durationMs }) => harm(id, late("metadata", answerDelayMs), durationMs),
    async cut({ brokers: [id], partitions }) {
      cluster.proxyOf(id).endConnections(partitions.length % 2 === 0 ? "close" : "reset");
    },
    async late_and_lost(fault) {
      const [lateId, lostId] = fault.brokers;
      const released = pause(fault.durationMs, signal);
      // Whether the late answers are lost in the end, too.
      const verdict = fault.partitions.length % 2 === 0 ? "pass" : "reset";
      const hold = harm(
        lateId,
        ofAnswers("produce", () => released.then(() => verdict)),
        fault.durationMs,
      );
      await pause(heldBeforeMs, signal);
      const moved = elect(fault);
      await Promise.all([hold, moved, harm(lostId, ofAnswers("produce", "reset"), lostMs)]);
    },
  };
  return { inject: (fault) => injectors[fault.kind](fault) };
}

/** The replicas of each partition in another order, so that each broker comes to lead some. */
function orders(brokers: readonly number[], partitions: readonly number[]) {
  return partitions.map((partition, index) => {
    const first = index % brokers.length;
    return { partition, replicas: [...brokers.slice(first), ...brokers.slice(0, first)] };
  });
}

function ofAnswers(name: string, verdict: Exclude<ReturnType<Fault>, Promise<unknown>> | Fault): Fault {
  const decide = typeof verdict === "function" ? verdict : () => verdict;
  return (unit: Unit) => (unit.direction === "answer" && unit.name === name ? decide(unit) : "pass");
}

function late(name: string, delayMs: number): Fault {
  return ofAnswers(name, () => Bun.sleep(delayMs).then(() => "pass" as const));
}
