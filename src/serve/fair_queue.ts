/**
 * Shares the event loop fairly. All reads of a process share one budget of
 * operations per turn of Deno's event loop, and a new read is tried at once.
 * Without the queue, connections whose next request is always waiting would use
 * up the budget, and others would wait for hundreds of turns.
 *
 * @module
 */

/** Reads that may start in one turn: a quarter of Deno's budget of 128. */
const PER_TURN = 32;

/** Lets some callers proceed at once and the others in later turns, first come, first served. */
export class FairQueue {
  readonly #queue: (() => void)[] = [];
  #head = 0;
  #taken = 0;
  #turning = false;
  readonly #perTurn: number;

  /** @param perTurn How many may proceed in one turn. Default 32. */
  constructor(perTurn: number = PER_TURN) {
    this.#perTurn = perTurn;
  }

  /** @returns `null` to proceed at once; else a promise to wait for. */
  take(): Promise<void> | null {
    if (!this.#turning) {
      this.#turning = true;
      setImmediate(this.#turn);
    }
    if (this.#taken < this.#perTurn) {
      this.#taken++;
      return null;
    }
    return new Promise((resolve) => this.#queue.push(resolve));
  }

  readonly #turn = (): void => {
    const end = Math.min(this.#head + this.#perTurn, this.#queue.length);
    this.#taken = end - this.#head;
    this.#turning = this.#taken > 0;
    if (this.#turning) setImmediate(this.#turn);
    while (this.#head < end) this.#queue[this.#head++]!();
    // Under load the queue is never empty: drop the served entries once they are half of it.
    if (this.#head < this.#queue.length / 2) return;
    this.#queue.splice(0, this.#head);
    this.#head = 0;
  };
}
