/**
 * Connections on which nothing happens.
 *
 * @module
 */

/** Seconds for a message once begun, in either direction, and for TLS to be agreed on. */
const MESSAGE_TIMEOUT = 10;

/** Seconds for a message that is under way when the server is stopped. */
export const GRACE = 0.5;

/** A connection that is looked at once a second, so that no message needs a timer. */
export abstract class IdleMonitor {
  /** Replies so far. */
  protected replies = 0;
  /** What the last look found (at first none: -1), and for how many seconds it has been so. */
  #seen = -1;
  #wasIdle = true;
  #unchanged = 0;

  /** Is it between two requests? */
  abstract get idle(): boolean;

  /** Begins anew. */
  protected forget(): void {
    this.replies = 0;
    this.#seen = -1;
    this.#wasIdle = true;
    this.#unchanged = 0;
  }

  /**
   * Looks at it.
   *
   * @param idleTimeout Seconds that may pass between two requests.
   * @returns Why it should be closed, if it should.
   */
  look(idleTimeout: number): "idle" | "slow" | null {
    const { idle } = this;
    if (this.replies !== this.#seen || idle !== this.#wasIdle) {
      this.#seen = this.replies;
      this.#wasIdle = idle;
      this.#unchanged = 0;
      return null;
    }
    this.#unchanged++;
    if (this.#unchanged < (idle ? idleTimeout : MESSAGE_TIMEOUT)) return null;
    return idle ? "idle" : "slow";
  }
}
