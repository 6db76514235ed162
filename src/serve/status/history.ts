/**
 * Ten minutes of figures. Its memory is taken once: what a sample leaves for
 * the garbage collector would be there for as many minutes.
 *
 * @module
 */

/** Seconds between two samples, and how many rates there are of them: ten minutes. */
export const STEP_SECONDS = 2;
export const LENGTH = 300;

/** Samples of so many figures, of which the oldest are forgotten. */
export class History {
  readonly #at = new Float64Array(LENGTH + 1);
  readonly #figures: readonly Float64Array[];
  #count = 0;

  /** @param figures How many there are in a sample. */
  constructor(figures: number) {
    this.#figures = Array.from({ length: figures }, () => new Float64Array(LENGTH + 1));
  }

  /**
   * @param at Seconds, on any timeline.
   * @param figures As many as ever.
   */
  record(at: number, figures: readonly number[]): void {
    const place = this.#count++ % (LENGTH + 1);
    this.#at[place] = at;
    for (const [i, column] of this.#figures.entries()) column[place] = figures[i]!;
  }

  /** What one figure was at each sample but the first, the newest last. */
  values(figure: number): number[] {
    return this.#each((_, now) => this.#figures[figure]![now]!);
  }

  /** By how much one grew in a second, from each sample to the next, to a tenth. */
  rates(figure: number): number[] {
    const column = this.#figures[figure]!;
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
