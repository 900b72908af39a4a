// Calls to something that may be away come in; while it is away they fail at once, and one now and then finds out whether
// it is back.
//
//   closed --failures in a row--> open --a pause--> half_open --an answer--> closed
//                                  ^---------a failure---------|
//
// It goes by a monotonic clock. (cockatiel's goes by the time of day: set back by an hour, it stays open for an hour.)
import { OperatingError } from "../model/errors.ts";

/** Whether calls are let through: all, none, or one that is under way. */
export type CircuitState = "closed" | "open" | "half_open";

/** When it opens, and for how long at least. */
export interface CircuitSettings {
  failuresToOpen: number;
  halfOpenAfterMs: number;
}

/** A circuit breaker. */
export interface Circuit {
  /** What `call` comes to. Rejects with OperatingError `circuit_open` when it is not even tried. */
  run<T>(call: () => Promise<T>): Promise<T>;
  state(): CircuitState;
}

/** A closed circuit; `now` is a monotonic clock in milliseconds. */
export function openCircuit(
  { failuresToOpen, halfOpenAfterMs }: CircuitSettings,
  now: () => number = () => performance.now(),
): Circuit {
  let state: CircuitState = "closed";
  let failures = 0;
  let openedAtMs = 0;

  function mayTry(): boolean {
    if (state !== "open") return state === "closed";
    if (now() - openedAtMs < halfOpenAfterMs) return false;
    state = "half_open";
    return true;
  }

  function failed() {
    failures += 1;
    if (state === "closed" && failures < failuresToOpen) return;
    state = "open";
    openedAtMs = now();
  }

  return {
    state: () => state,
    async run(call) {
      if (!mayTry()) throw new OperatingError("circuit_open");
      const isTrial = state === "half_open";
      try {
        const answer = await call();
        // A late answer to a call from before it opened is no proof that others get one.
        if (isTrial || state === "closed") {
          state = "closed";
          failures = 0;
        }
        return answer;
      } catch (error) {
        if (isTrial || state === "closed") failed();
        throw error;
      }
    },
  };
}
