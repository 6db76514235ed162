/**
 * Whose turn it is. All reads of a process share one budget of operations per
 * turn of Deno's event loop, and a read that is begun is tried at once. So a
 * connection whose next request is always there already would use the budget
 * up, and others would wait for hundreds of turns.
 *
 * @module
 */

/** Connections that may begin a read in one turn: a quarter of Deno's budget of 128. */
const PER_TURN = 32;

/** Lets some go on at once, and all others in the turns that follow, first come first served. */
export class FairQueue {
  readonly #queue: (() => void)[] = [];
  #head = 0;
  #taken = 0;
  #turning = false;

  /** @returns `null` to go on at once; else what to wait for. */
  take(): Promise<void> | null {
    if (!this.#turning) {
      this.#turning = true;
      setImmediate(this.#turn);
    }
    if (this.#taken < PER_TURN) {
      this.#taken++;
      return null;
    }
    return new Promise((resolve) => this.#queue.push(resolve));
  }

  readonly #turn = (): void => {
    const end = Math.min(this.#head + PER_TURN, this.#queue.length);
    this.#taken = end - this.#head;
    this.#turning = this.#taken > 0;
    if (this.#turning) setImmediate(this.#turn);
    while (this.#head < end) this.#queue[this.#head++]!();
    // What has had its turn goes, once it is half of all: under load the queue is never empty.
    if (this.#head < this.#queue.length / 2) return;
    this.#queue.splice(0, this.#head);
    this.#head = 0;
  };
}
