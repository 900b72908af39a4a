// What a check found out about one guarantee.

/** What is promised, in the words of the verdict. */
export const guarantees = {
  acknowledged: "an acknowledged message is stored as it was acknowledged",
  numbers: "numbers are 1 to n: none missing, none twice",
  retries: "a message that is sent again keeps its one number",
  refusals: "what was refused, or sent by nobody, is not stored",
  order: "no effect comes before its cause",
  history: "a page of history shows what was acknowledged before it was asked for",
  receipts: "cursors never fall",
  members: "nobody gets or sends anything after being removed",
  streams: "sockets and event streams get each event once and in order, after a resume too",
  topics: "topics have every event, first occurrences in order, each on its partition",
  delivered: "every message ends as delivered, none as a dead letter",
  stuck: "nothing stays stuck once all is healed",
  exits: "no instance exits by itself",
} as const;

/** The name of one. */
export type Guarantee = keyof typeof guarantees;

const shownMax = 5;

/** How often a guarantee was looked at, and where it was broken. */
export class Judgement {
  readonly guarantee: Guarantee;
  /** How many things were looked at. */
  checked = 0;
  /** How many were not as promised. */
  violations = 0;
  /** The first few, each with its conversation, numbers, ids and times. */
  readonly shown: string[] = [];

  constructor(guarantee: Guarantee) {
    this.guarantee = guarantee;
  }

  /** Notes a violation. */
  broken(text: string): void {
    this.violations += 1;
    if (this.shown.length < shownMax) this.shown.push(text);
  }
}

/** A time of this process as people compare it. */
export function seconds(atMs: number): string {
  return `${(atMs / 1000).toFixed(3)} s`;
}

/** One judgement for each guarantee, of any number of checks. */
export function merged(judgements: readonly Judgement[]): Judgement[] {
  const whole = new Map<Guarantee, Judgement>();
  for (const one of judgements) {
    const sum = whole.get(one.guarantee) ?? new Judgement(one.guarantee);
    sum.checked += one.checked;
    sum.violations += one.violations;
    sum.shown.push(...one.shown.slice(0, shownMax - sum.shown.length));
    whole.set(one.guarantee, sum);
  }
  return [...whole.values()];
}
