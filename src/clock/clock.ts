/**
 * What tsync asks of a clock, so that the same code runs on the system's and
 * on a simulated one.
 *
 * @module
 */

import type { Leap } from "../ntp/packet.ts";

/** A clock that can be read. */
export interface Clock {
  /** The time it shows: nanoseconds since the Unix epoch. It can be stepped or slewed at any moment. */
  realtime(): bigint;
  /** A timeline that is never stepped: nanoseconds since an arbitrary moment. */
  monotonic(): bigint;
  /** The step in which the coarser of the two timelines counts, as measured, in seconds. */
  readonly precision: number;
  /** What the kernel knows about the clock; `null` where it cannot be asked. */
  state(): ClockState | null;
}

/** What the kernel knows about its clock. */
export interface ClockState {
  /** Has something kept the clock synchronised lately? */
  readonly synchronised: boolean;
  /** The leap second that is due at the end of the day. */
  readonly leap: Leap;
  /** The most by which the clock can be wrong, in seconds; it includes what is still to be slewed. */
  readonly maximumError: number;
  /** The clock's probable error, in seconds. */
  readonly estimatedError: number;
  /**
   * By how much the kernel makes the clock run faster than its oscillator, as a fraction; a slew that
   * ends by itself is not included.
   */
  readonly frequency: number;
}

/** Runs something later: `setTimeout`, or a simulator's. */
export interface Timers {
  /**
   * Calls `callback` once, after `seconds`.
   *
   * @returns A function that cancels the call.
   */
  after(seconds: number, callback: () => void): () => void;
}

/** What both timelines show at one moment. */
export interface CrossTimestamp {
  /** Nanoseconds, as {@linkcode Clock.monotonic}. */
  readonly monotonic: bigint;
  /** Nanoseconds, as {@linkcode Clock.realtime}. */
  readonly realtime: bigint;
  /** The most by which the two readings can be apart, in nanoseconds. */
  readonly error: bigint;
}

/** Reads both timelines as nearly at once as possible: the best of several attempts. */
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

/** Nanoseconds of slewing that are allowed for: in more time a sleep would pass for a slew. */
const MOST_SLEWING = 20_000_000_000n;

/**
 * Was the clock set, or the machine suspended, between two cross timestamps? Slewing
 * (500 ppm) and the oscillator's own error (as much again) count as neither, for twenty seconds.
 *
 * @param slew How fast the clock may be slewed beside that, as a fraction. Default 0.
 */
export function stepped(earlier: CrossTimestamp, later: CrossTimestamp, slew = 0): boolean {
  const elapsed = later.monotonic - earlier.monotonic;
  const moved = (later.realtime - earlier.realtime) - elapsed;
  const slewing = elapsed < MOST_SLEWING ? elapsed : MOST_SLEWING;
  const slewed = BigInt(Math.ceil((1e-3 + slew) * Number(slewing)));
  const tolerated = 1_000_000n + slewed + earlier.error + later.error;
  return moved > tolerated || -moved > tolerated;
}
