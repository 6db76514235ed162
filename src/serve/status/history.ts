/**
 * Ten minutes of samples, in memory that is allocated once: objects per sample
 * would survive long enough to burden the garbage collector.
 *
 * @module
 */

/** Time between two samples. */
export const STEP_SECONDS = 2;

/** Rates that are kept, ten minutes of them. */
const LENGTH = 300;

/** The latest samples of several series. */
export class History {
  readonly #at = new Float64Array(LENGTH + 1);
  readonly #series: readonly Float64Array[];
  #count = 0;

  /** @param series The number of values in a sample. */
  constructor(series: number) {
    this.#series = Array.from({ length: series }, () => new Float64Array(LENGTH + 1));
  }

  /**
   * Adds a sample, and drops the oldest.
   *
   * @param at Seconds, on any timeline.
   * @param values One for each series.
   */
  record(at: number, values: readonly number[]): void {
    const place = this.#count++ % (LENGTH + 1);
    this.#at[place] = at;
    for (const [i, column] of this.#series.entries()) column[place] = values[i]!;
  }

  /** One series' values at each sample but the first, the newest last. */
  values(series: number): number[] {
    return this.#each((_, now) => this.#series[series]![now]!);
  }

  /** One series' increases per second from each sample to the next, to one decimal. */
  rates(series: number): number[] {
    const column = this.#series[series]!;
    return this.#each((before, now) => {
      const rate = (column[now]! - column[before]!) / (this.#at[now]! - this.#at[before]!);
      return Math.round(rate * 10) / 10;
    });
  }

  #each(map: (before: number, now: number) => number): number[] {
    const count = Math.min(this.#count - 1, LENGTH);
    return Array.from({ length: Math.max(count, 0) }, (_, i) => {
      const now = this.#count - count + i;
      return map((now - 1) % (LENGTH + 1), now % (LENGTH + 1));
    });
  }
}
