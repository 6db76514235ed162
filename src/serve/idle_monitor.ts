/**
 * Connections on which nothing happens.
 *
 * @module
 */

/** Seconds for a message once begun, in either direction, and for TLS to be agreed on. */
const MESSAGE_TIMEOUT_SECONDS = 10;

/** Seconds for a message that is under way when the server is stopped. */
export const GRACE_SECONDS = 0.5;

/** Looks at a connection once a second, so that no message needs a timer. */
export class IdleMonitor {
  /** Replies so far. */
  protected replies = 0;
  /** Replies at the last look; -1 before the first. */
  #seen = -1;
  #wasIdle = true;
  /** Seconds for which looks have found the same. */
  #unchanged = 0;

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
   * @param idle Is it between two requests?
   * @param idleTimeout Seconds that may pass between two requests.
   * @returns Why it should be closed, if it should.
   */
  look(idle: boolean, idleTimeout: number): "idle" | "slow" | null {
    if (this.replies !== this.#seen || idle !== this.#wasIdle) {
      this.#seen = this.replies;
      this.#wasIdle = idle;
      this.#unchanged = 0;
      return null;
    }
    this.#unchanged++;
    if (this.#unchanged < (idle ? idleTimeout : MESSAGE_TIMEOUT_SECONDS)) return null;
    return idle ? "idle" : "slow";
  }
}
