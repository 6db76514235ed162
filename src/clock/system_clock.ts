/**
 * The machine's clock, read through libc: 40 ns a reading, to the nanosecond.
 * `Date.now()` stops at a millisecond, and `performance.timeOrigin +
 * performance.now()` leaves the system's clock behind within seconds.
 *
 * @module
 */

import { SECOND } from "../ntp/timestamp.ts";
import type { Clock, ClockState, Timers } from "./clock.ts";
import { type Libc, LIBC_PATHS, openLibc, sharedLibc } from "../libc/libc.ts";

/** The same numbers on Linux (linux/time.h) and macOS (time.h). */
const CLOCK_REALTIME = 0;
const CLOCK_MONOTONIC_RAW = 4;

/**
 * `struct timex`: the fields read here lie at the same place on 64-bit Linux
 * (sys/timex.h, 208 bytes) and macOS (sys/timex.h, 136 bytes), in words of 64 bits.
 */
const TIMEX = { words: 26, offset: 1, maxError: 3, estError: 4, status: 5 } as const;

/** Bits of `timex.status`, on both systems. */
const STA_PLL = 0x01;
const STA_INS = 0x10;
const STA_DEL = 0x20;
const STA_UNSYNC = 0x40;
/** `timex.offset` is in nanoseconds; else in microseconds. */
const STA_NANO = 0x2000;

/** Microseconds that the kernel adds to `maxerror` each second (MAXFREQ of linux/timex.h). */
const ERROR_GROWTH = 500n;

/** The most that a clock may be off its reference for NTP to follow it: MAXDIST, in seconds (RFC 5905, section 7.2). */
const UNKNOWN_ERROR = 1;

/** `ntp_adjtime`'s result when the clock is not synchronised. */
const TIME_ERROR = 5;

let shared: Clock | undefined;

/** The system's clock, opened at the first call. See {@linkcode openSystemClock}. */
export function systemClock(): Clock {
  return shared ??= openSystemClock();
}

/** Is it what {@linkcode systemClock} gives? */
export function isSystemClock(clock: Clock): boolean {
  return clock === shared;
}

/**
 * Opens the system's clock: libc where that may be loaded, else `Temporal`
 * (a microsecond a reading, and nothing known of the kernel's state).
 * Never asks for a permission.
 *
 * @param paths Where to look for libc. Default {@linkcode LIBC_PATHS}.
 * @returns The clock; disposing of it unloads a libc that was looked for at `paths`.
 * @throws {Error} if neither is to be had.
 */
export function openSystemClock(paths?: readonly string[]): Clock & Disposable {
  const opened = paths === undefined ? null : openLibc(paths);
  const libc = paths === undefined ? sharedLibc() : opened;
  if (libc !== null) return libcClock(libc, () => opened?.[Symbol.dispose]());
  if (typeof Temporal === "undefined") {
    throw new Error(
      "cannot read the system clock to the nanosecond: libc is not at any of the paths " +
        `that may be loaded (${(paths ?? LIBC_PATHS).join(", ")}) and this runtime has no Temporal`,
    );
  }
  return measured({
    realtime: () => Temporal.Now.instant().epochNanoseconds,
    monotonic: () => BigInt(Math.round(performance.now() * 1e6)),
    state: () => null,
    [Symbol.dispose]: () => {},
  });
}

function libcClock(libc: Libc, dispose: () => void): Clock & Disposable {
  const timespec = new BigInt64Array(2);
  const read = (id: number): bigint => {
    libc.clock_gettime(id, timespec);
    return timespec[0]! * SECOND + timespec[1]!;
  };
  return measured({
    realtime: () => read(CLOCK_REALTIME),
    monotonic: () => read(CLOCK_MONOTONIC_RAW),
    state: () => readState(libc),
    [Symbol.dispose]: dispose,
  });
}

/** All zero in `modes`, the first word: reads and sets nothing. */
function readState(libc: Libc): ClockState | null {
  const timex = new BigInt64Array(TIMEX.words);
  const state = libc.ntp_adjtime(timex);
  return state < 0 ? null : decodeTimex(timex, state);
}

/**
 * What a `struct timex` says, as far as it is true.
 *
 * @param state The result of `ntp_adjtime`.
 */
export function decodeTimex(timex: BigInt64Array, state: number): ClockState {
  const status = Number(timex[TIMEX.status]! & 0xffff_ffffn);
  const [maxError, estError] = [timex[TIMEX.maxError]!, timex[TIMEX.estError]!];
  return {
    synchronised: state !== TIME_ERROR && (status & STA_UNSYNC) === 0,
    leap: status & STA_INS ? "insert" : status & STA_DEL ? "delete" : "none",
    maximumError: maximumError(maxError, estError, status) +
      Math.abs(Number(timex[TIMEX.offset])) / (status & STA_NANO ? 1e9 : 1e6),
    estimatedError: Number(estError) / 1e6,
  };
}

/**
 * What is true of the kernel's `maxerror`. systemd-timesyncd, which has the kernel slew (STA_PLL),
 * sets it to 0, and `esterror` too, each time that it adjusts the clock, however wrong its server
 * is; OpenNTPD sets it alone, which leaves the probable error greater than the greatest. Who claims
 * that there is no error at all has not looked: then the clock is as wrong as any that NTP would
 * follow.
 *
 * @returns Seconds.
 */
function maximumError(maxError: bigint, estError: bigint, status: number): number {
  const claim = Number(maxError) / 1e6;
  const claimsNone = (status & STA_PLL) !== 0 && estError === 0n && maxError % ERROR_GROWTH === 0n;
  return claimsNone || estError > maxError ? Math.max(claim, UNKNOWN_ERROR) : claim;
}

/** Enough of them that some differ from others by a single step. */
const READINGS = 65;

/**
 * Adds the precision, the coarser timeline's. It is measured when it is first asked for, which a
 * start need not wait for.
 */
function measured(clock: Omit<Clock, "precision"> & Disposable): Clock & Disposable {
  const step = (read: () => bigint) => Number(granularity(Array.from({ length: READINGS }, read)));
  let precision: number | undefined;
  return {
    ...clock,
    get precision() {
      return precision ??= Math.max(step(clock.monotonic), step(clock.realtime)) / 1e9;
    },
  };
}

/**
 * The step in which a clock counts, from readings in quick succession. It is not the time that a
 * reading takes, which does no harm: T1 and T3 are read before a message leaves. How far apart
 * readings are varies by single steps.
 *
 * @returns Nanoseconds; a second if the clock does not seem to go.
 */
export function granularity(readings: readonly bigint[]): bigint {
  const distances = readings.slice(1).map((reading, i) => reading - readings[i]!)
    .filter((distance) => distance > 0n)
    .sort((a, b) => Number(a - b));
  const steps = distances.slice(1).map((distance, i) => distance - distances[i]!)
    // One that is no whole number of nanoseconds has been rounded.
    .filter((step) => step > 1n).map((step) => step + 1n);
  return [...distances, ...steps].reduce((a, b) => a < b ? a : b, SECOND);
}

/** A number from 0 to less than 1, for what nobody gains by guessing. */
export const systemRandom: () => number = Math.random;

/** The runtime's timers. */
export const systemTimers: Timers = {
  after(seconds, callback) {
    const timer = setTimeout(callback, seconds * 1000);
    return () => clearTimeout(timer);
  },
};
