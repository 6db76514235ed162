/**
 * Detects connections on which nothing happens.
 *
 * @module
 */

/** The most time for a message, in either direction, and for a TLS handshake. */
const MESSAGE_TIMEOUT_SECONDS = 10;

/** The most time for pending messages when the server is stopped. */
export const GRACE_SECONDS = 0.5;

/** Seconds that a connection may be silent, by default. */
export const IDLE_TIMEOUT_SECONDS = 300;

/** Checks a connection once a second, so that messages need no timers. */
export class IdleMonitor {
  /** Replies so far. */
  protected replies = 0;
  /** Replies at the last check; -1 before the first. */
  #seen = -1;
  #wasIdle = true;
  #unchangedSeconds = 0;

  /** Starts over, for another connection. */
  protected reset(): void {
    this.replies = 0;
    this.#seen = -1;
    this.#wasIdle = true;
    this.#unchangedSeconds = 0;
  }

  /**
   * Checks the connection. Call it once a second.
   *
   * @param idle Whether it is between two requests.
   * @param idleTimeout The most seconds between two requests.
   * @returns Why to close the connection; `null` to keep it.
   */
  check(idle: boolean, idleTimeout: number): "idle" | "slow" | null {
    if (this.replies !== this.#seen || idle !== this.#wasIdle) {
      this.#seen = this.replies;
      this.#wasIdle = idle;
      this.#unchangedSeconds = 0;
      return null;
    }
    this.#unchangedSeconds++;
    if (this.#unchangedSeconds < (idle ? idleTimeout : MESSAGE_TIMEOUT_SECONDS)) return null;
    return idle ? "idle" : "slow";
  }
}
