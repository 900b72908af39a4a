// What is done to instances, to their workers and to their clocks.
import { workerNames } from "../../../workers/protocol.ts";
import type { FaultKind } from "../faults.ts";
import type { Instance } from "../node.ts";
import type { StageParts } from "../stage.ts";

const shortMs = [1_000, 6_000] as const;
const longMs = [1_000, 30_000] as const;
/** The supervisor needs 3 s to find a worker that loops. */
const workerMs = [3_500, 6_000] as const;
const hourMs = 3_600_000;

/** Every kind of harm to an instance itself. */
export function instanceFaults({ instances }: StageParts): FaultKind[] {
  return instances.flatMap((instance) => [
    ...processFaults(instance),
    ...workerFaults(instance),
    ...clockFaults(instance),
  ]);
}

function processFaults(instance: Instance): FaultKind[] {
  const { name } = instance;
  const outline = (how: string) => ({
    name: `${name} ${how}`,
    group: "instance" as const,
    what: `instance ${how}`,
    target: name,
  });
  return [
    { ...outline("kill -9"), durationMs: shortMs, begin: instance.kill, end: instance.start },
    {
      ...outline("pause"),
      durationMs: longMs,
      begin: async () => instance.pause(),
      end: async () => instance.resume(),
    },
    {
      ...outline("drain"),
      durationMs: shortMs,
      async begin() {
        const { code, durationMs } = await instance.drain();
        if (code !== null && code !== 0)
          throw new Error(`${name} drained with code ${code} after ${Math.round(durationMs)} ms`);
      },
      end: instance.start,
    },
  ];
}

function workerFaults(instance: Instance): FaultKind[] {
  return workerNames.flatMap((worker) => {
    const kind = (how: string, command: "crash_worker" | "loop_worker"): FaultKind => ({
      name: `${instance.name} ${worker} ${how}`,
      group: "worker",
      what: `${worker} ${how}`,
      target: instance.name,
      durationMs: workerMs,
      begin: () => instance.tell({ kind: command, worker }),
      // The supervisor's business.
      end: async () => undefined,
    });
    return [kind("crash", "crash_worker"), kind("endless loop", "loop_worker")];
  });
}

function clockFaults(instance: Instance): FaultKind[] {
  const kind = (how: string, byMs: number): FaultKind => ({
    name: `${instance.name} clock ${how}`,
    group: "clock",
    what: `clock ${how}`,
    target: instance.name,
    durationMs: shortMs,
    begin: () => instance.tell({ kind: "jump_clock", byMs }),
    // A process that was started meanwhile has the right time.
    end: () => instance.tell({ kind: "jump_clock", byMs: 0 }).catch(() => undefined),
  });
  return [kind("an hour ahead", hourMs), kind("an hour back", -hourMs)];
}
