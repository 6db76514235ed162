/**
 * What tsync asks of a clock, so that the same code runs on the system's and
 * on a simulated one.
 *
 * @module
 */

import type { Leap } from "../ntp/packet.ts";

/** A clock that can be read. */
export interface Clock {
  /** The time that it shows: nanoseconds since the Unix epoch. Can be stepped and slewed at any moment. */
  realtime(): bigint;
  /** A timeline that nobody steps: nanoseconds since an arbitrary moment. */
  monotonic(): bigint;
  /** The step in which the coarser of the two timelines counts, in seconds. Measured. */
  readonly precision: number;
  /** What keeps the clock right, as far as the system knows; `null` where it cannot be asked. */
  state(): ClockState | null;
}

/** The kernel's own opinion of its clock. */
export interface ClockState {
  /** Has something kept the clock synchronised lately? */
  readonly synchronised: boolean;
  /** The leap second that is due at the end of the day. */
  readonly leap: Leap;
  /** Greatest error that the clock can have, in seconds; what is still being slewed is in it. */
  readonly maximumError: number;
  /** Error that the clock probably has, in seconds. */
  readonly estimatedError: number;
}

/** Runs something later: `setTimeout`, or a simulator's. */
export interface Timers {
  /**
   * Calls `callback` once, after `seconds`.
   *
   * @returns A function that prevents it.
   */
  after(seconds: number, callback: () => void): () => void;
}

/** What both timelines show at one moment. */
export interface CrossTimestamp {
  /** Nanoseconds, as {@linkcode Clock.monotonic}. */
  readonly monotonic: bigint;
  /** Nanoseconds, as {@linkcode Clock.realtime}. */
  readonly realtime: bigint;
  /** Greatest distance between the two readings, in nanoseconds. */
  readonly error: bigint;
}

/** Reads both timelines as nearly at once as can be, in so many attempts. */
export function crossTimestamp(clock: Clock, attempts = 5): CrossTimestamp {
  let best: CrossTimestamp | undefined;
  for (let attempt = 0; attempt < attempts; attempt++) {
    const before = clock.monotonic();
    const realtime = clock.realtime();
    const after = clock.monotonic();
    const error = (after - before + 1n) / 2n;
    if (best === undefined || error < best.error) {
      best = { monotonic: before + error, realtime, error };
    }
  }
  return best!;
}

/**
 * Was the clock set, or the machine suspended, between two ties? What slewing
 * does (500 ppm) and what a raw oscillator is off (as much again) is neither.
 */
export function stepped(earlier: CrossTimestamp, later: CrossTimestamp): boolean {
  const elapsed = later.monotonic - earlier.monotonic;
  const moved = (later.realtime - earlier.realtime) - elapsed;
  const tolerated = 1_000_000n + elapsed / 1000n + earlier.error + later.error;
  return moved > tolerated || -moved > tolerated;
}
