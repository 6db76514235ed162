/**
 * Keeps the event loop turning for some microseconds, so that what arrives next
 * finds this process awake: waking a sleeping processor takes tens of
 * microseconds, by which a timestamp is late. Measured on loopback between two
 * processes of a virtual machine: error bound 20 µs with it, 52 µs without.
 *
 * @module
 */

/** Shared by all connections that expect something equally soon. */
export class BusyPoll {
  readonly #milliseconds: number;
  #turning = false;
  #until = 0;

  /** @param seconds How long to keep turning after {@linkcode start}. */
  constructor(seconds: number) {
    this.#milliseconds = seconds * 1000;
  }

  /** Something is expected from now on. */
  start(): void {
    this.#until = performance.now() + this.#milliseconds;
    if (this.#turning) return;
    this.#turning = true;
    setImmediate(this.#turn);
  }

  /** Nothing is expected any more. */
  stop(): void {
    this.#until = 0;
  }

  readonly #turn = (): void => {
    if (performance.now() < this.#until) setImmediate(this.#turn);
    else this.#turning = false;
  };
}
