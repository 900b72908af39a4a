// What was acknowledged and what is in the log come in, the verdict on both leaves. Pure.

/** A message is its number in its partition: 0, 1, 2, in the order in which they were first sent. */
export interface Written {
  partition: number;
  number: number;
}

/** Counts of messages; `lost` and `reordered` are breaches, `doubled` is what at least once allows. */
export interface Verdict {
  acknowledged: number;
  /** Acknowledged, and not in the log. */
  lost: number;
  /** Records of the log beyond the first of their message. */
  doubled: number;
  /** First records of a message that stand behind one of a later message. */
  reordered: number;
}

/** Holds the log of a topic, each partition in its order, against what was acknowledged. */
export function judge(acknowledged: readonly Written[], log: readonly Written[]): Verdict {
  const seen = new Set<string>();
  const highest = new Map<number, number>();
  let doubled = 0;
  let reordered = 0;
  for (const { partition, number } of log) {
    const name = `${partition}/${number}`;
    if (seen.has(name)) {
      doubled += 1;
      continue;
    }
    seen.add(name);
    const before = highest.get(partition) ?? -1;
    if (number < before) reordered += 1;
    highest.set(partition, Math.max(before, number));
  }
  const names = new Set(acknowledged.map(({ partition, number }) => `${partition}/${number}`));
  return { acknowledged: names.size, lost: names.difference(seen).size, doubled, reordered };
}
