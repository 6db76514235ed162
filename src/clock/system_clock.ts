/**
 * The machine's clock, read through libc: 40 ns a reading, to the nanosecond.
 * `Date.now()` stops at a millisecond, and `performance.timeOrigin +
 * performance.now()` drifts away from the system clock within seconds.
 *
 * @module
 */

import { SECOND } from "../ntp/timestamp.ts";
import type { Clock, ClockState, Timers } from "./clock.ts";
import { CLOCK_UPTIME_RAW, isDarwin } from "../libc/darwin.ts";
import { type Libc, LIBC_PATHS, sharedLibc } from "../libc/libc.ts";
import {
  CLOCK_MONOTONIC_RAW,
  CLOCK_REALTIME,
  ERROR_GROWTH_US,
  frequencyOf,
  MAXDISP_US,
  STA_DEL,
  STA_INS,
  STA_NANO,
  STA_PLL,
  STA_UNSYNC,
  TIME_ERROR,
  timex,
} from "../libc/timex.ts";

/** More than a `struct ntptimeval` has on macOS. */
const NTPTIMEVAL_WORDS = 8;

/** The most that a clock may be wrong for NTP to follow it: MAXDIST, in seconds (RFC 5905, section 7.2). */
const UNKNOWN_ERROR_SECONDS = 1;

let shared: Clock | undefined;

/** The system's clock, opened at the first call. See {@linkcode openSystemClock}. */
export function systemClock(): Clock {
  return shared ??= openSystemClock();
}

/** Is it the one that {@linkcode systemClock} returns? */
export function isSystemClock(clock: Clock): boolean {
  return clock === shared;
}

/**
 * Makes the system's clock: libc's where that may be loaded, else `Temporal`
 * (a microsecond a reading, and nothing known of the kernel's state).
 * Never asks for a permission.
 *
 * @param libc Default: the process's.
 * @throws {Error} if neither is available.
 */
export function openSystemClock(libc: Libc | null = sharedLibc()): Clock {
  if (libc !== null) return libcClock(libc);
  if (typeof Temporal === "undefined") {
    throw new Error(
      "cannot read the system clock to the nanosecond: libc is not at any of the paths " +
        `that may be loaded (${LIBC_PATHS.join(", ")}) and this runtime has no Temporal`,
    );
  }
  return {
    // Both timelines count whole microseconds, which doubles round to a quarter of one.
    precision: 1.25e-6,
    realtime: () => Temporal.Now.instant().epochNanoseconds,
    monotonic: () => BigInt(Math.round(performance.now() * 1e6)),
    state: () => null,
  };
}

/** Changes of a clock from which its step is measured: enough for some to differ by one step. */
const CHANGES = 64;

/** The most readings that this takes: of a clock of microseconds, dozens are the same. */
const MAX_READINGS = 100_000;

function libcClock(libc: Libc): Clock {
  const monotonic = isDarwin(libc) ? CLOCK_UPTIME_RAW : CLOCK_MONOTONIC_RAW;
  const timespec = new BigInt64Array(2);
  const read = (id: number): bigint => {
    libc.clock_gettime(id, timespec);
    return timespec[0]! * SECOND + timespec[1]!;
  };
  const step = (id: number) => {
    const readings = [read(id)];
    for (let i = 0; i < MAX_READINGS && readings.length <= CHANGES; i++) {
      const reading = read(id);
      if (reading !== readings.at(-1)) readings.push(reading);
    }
    return Number(granularity(readings)) / 1e9;
  };
  let precision: number | undefined;
  return {
    realtime: () => read(CLOCK_REALTIME),
    monotonic: () => read(monotonic),
    state: () => readState(libc),
    // Measured only when it is first asked for: that takes a moment.
    get precision() {
      return precision ??= Math.max(step(monotonic), step(CLOCK_REALTIME));
    },
  };
}

/** Only reads: `modes`, the first word, is 0. */
function readState(libc: Libc): ClockState | null {
  const kernel = new BigInt64Array(timex.words);
  // On macOS `maxerror` stands still while nothing is slewed, unless this has it brought up to date.
  if (isDarwin(libc)) libc.ntp_gettime(new BigInt64Array(NTPTIMEVAL_WORDS));
  const state = libc.ntp_adjtime(kernel);
  return state < 0 ? null : decodeTimex(kernel, state);
}

/**
 * What a `struct timex` says, as far as it can be believed.
 *
 * @param state The result of `ntp_adjtime`.
 */
export function decodeTimex(kernel: BigInt64Array, state: number): ClockState {
  const status = Number(kernel[timex.status]! & 0xffff_ffffn);
  const [maxError, estError] = [kernel[timex.maxerror]!, kernel[timex.esterror]!];
  return {
    synchronised: state !== TIME_ERROR && (status & STA_UNSYNC) === 0 && maxError < MAXDISP_US,
    leap: status & STA_INS ? "insert" : status & STA_DEL ? "delete" : "none",
    maximumError: maximumError(maxError, estError, status) +
      Math.abs(Number(kernel[timex.offset])) / (status & STA_NANO ? 1e9 : 1e6),
    estimatedError: Number(estError) / 1e6,
    frequency: frequencyOf(kernel),
  };
}

/**
 * The greatest error, as far as the kernel's `maxerror` can be believed. systemd-timesyncd, which
 * has the kernel slew (STA_PLL), sets it and `esterror` to 0 whenever it adjusts the clock, however
 * wrong its server is; OpenNTPD sets only `maxerror` to 0, which leaves the probable error above
 * the greatest. A program that claims no error at all has not measured it: the clock is then taken
 * to be as wrong as any that NTP would follow.
 *
 * @returns Seconds.
 */
function maximumError(maxError: bigint, estError: bigint, status: number): number {
  const claim = Number(maxError < MAXDISP_US ? maxError : MAXDISP_US) / 1e6;
  const claimsNone = (status & STA_PLL) !== 0 && estError === 0n &&
    maxError % ERROR_GROWTH_US === 0n;
  return claimsNone || estError > maxError ? Math.max(claim, UNKNOWN_ERROR_SECONDS) : claim;
}

/**
 * The step in which a clock counts, from readings in quick succession: the distances between them
 * differ by single steps. The time that a reading takes is something else, and does no harm: T1 and
 * T3 are read before a message leaves.
 *
 * @returns Nanoseconds; a second if the clock seems to stand still.
 */
export function granularity(readings: readonly bigint[]): bigint {
  const distances = readings.slice(1).map((reading, i) => reading - readings[i]!)
    .filter((distance) => distance > 0n)
    .sort((a, b) => Number(a - b));
  const steps = distances.slice(1).map((distance, i) => distance - distances[i]!)
    .filter((step) => step > 1n);
  const least = [...distances, ...steps].reduce((a, b) => a < b ? a : b, SECOND);
  // Of a step that is not a whole number of nanoseconds, less than two are lost in rounding.
  return least === 1n || least === SECOND ? least : least + 2n;
}

/** A random number from 0 up to but not including 1, for what need not be secret. */
export const systemRandom: () => number = Math.random;

/** The runtime's timers. */
export const systemTimers: Timers = {
  after(seconds, callback) {
    const timer = setTimeout(callback, seconds * 1000);
    return () => clearTimeout(timer);
  },
};
