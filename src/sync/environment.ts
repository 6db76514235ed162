/**
 * What measuring is given.
 *
 * @module
 */

import type { Clock, Timers } from "../clock/clock.ts";
import type { Network } from "../net/network.ts";

/** The world outside, as far as measuring needs it. */
export interface Environment {
  readonly clock: Clock;
  readonly network: Network;
  readonly timers: Timers;
  /** 64 bits that nobody can guess, different each time. */
  readonly nonce: () => bigint;
}
