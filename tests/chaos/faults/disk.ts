// A broker whose disk is full.
import type { FaultKind } from "../faults.ts";
import type { StageParts } from "../stage.ts";

/** Of the first broker, if its disk can be made full here. */
export function diskFaults({ brokers: [broker], disk }: StageParts): FaultKind[] {
  if (broker === undefined || disk === undefined) return [];
  let isFull = false;
  return [
    {
      name: `${broker.name} disk full`,
      group: "disk",
      what: "kafka disk full",
      target: "kafka",
      durationMs: [2_000, 6_000],
      async begin() {
        isFull = true;
        disk.fill(broker.pid());
      },
      async end() {
        if (!isFull) return;
        isFull = false;
        disk.free();
        // It has halted, or is about to. What it wrote by half is put right only after an end without order.
        await broker.stop("SIGKILL");
        await broker.start();
      },
    },
  ];
}
