// The kinds of harm that can be done to a stage.

/** What a fault harms. */
export type FaultGroup =
  | "instance"
  | "worker"
  | "postgres"
  | "redis"
  | "kafka"
  | "network"
  | "clock"
  | "disk";

/** What a plan is made of. */
export interface FaultOutline {
  /** Of this kind alone, for example `instance-1 kill -9`. */
  name: string;
  group: FaultGroup;
  /** The same for kinds that differ in `target` only, for example `instance kill -9`. */
  what: string;
  /** Two faults with one target are never there at a time. */
  target: string;
  /** How long it may last. */
  durationMs: readonly [least: number, most: number];
}

/** One kind of harm. `begin` and `end` may each be called again, and while other faults are there. */
export interface FaultKind extends FaultOutline {
  /** Resolves when the harm is done. */
  begin(): Promise<void>;
  /** Heals it; resolves when the harmed part answers again as far as it depends on this fault. */
  end(): Promise<void>;
}
