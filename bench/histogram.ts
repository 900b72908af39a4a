// Times in buckets that are two percent wide each, so that any number of them fits in little memory.

const growth = Math.log(1.02);
const leastMs = 0.01;
const buckets = 1000;

/** Counts times in milliseconds; quantiles are right to two percent. */
export class Histogram {
  readonly #counts = new Uint32Array(buckets);
  count = 0;

  note(milliseconds: number): void {
    const bucket = Math.ceil(Math.log(Math.max(milliseconds, leastMs) / leastMs) / growth);
    this.#counts[Math.min(bucket, buckets - 1)] = (this.#counts[Math.min(bucket, buckets - 1)] ?? 0) + 1;
    this.count += 1;
  }

  /** The time that this share of all did not exceed; 0 without any. */
  quantile(share: number): number {
    let left = Math.ceil(this.count * share);
    for (const [bucket, count] of this.#counts.entries()) {
      left -= count;
      if (left <= 0 && this.count > 0) return leastMs * Math.exp(bucket * growth);
    }
    return 0;
  }
}
