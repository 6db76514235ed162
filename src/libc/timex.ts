/**
 * What libc's functions for clocks take: names, offsets and values from time.h,
 * sys/timex.h and linux/timex.h. All are the same on 64-bit Linux and macOS; a
 * test checks them against the headers of both.
 *
 * @module
 */

export const CLOCK_REALTIME = 0;
export const CLOCK_MONOTONIC_RAW = 4;

/**
 * Words of 64 bits of a `struct timex`, of which macOS has the first 17. Those from `time` on, read
 * here, only Linux has: on macOS they stay 0.
 */
export const timex = {
  words: 26,
  modes: 0,
  offset: 1,
  freq: 2,
  maxerror: 3,
  esterror: 4,
  status: 5,
  constant: 6,
  time: 9,
  tick: 11,
} as const;

/** Bits of `timex.modes`: what is to be changed. macOS has `MOD_` for `ADJ_`, but not the last two. */
export const ADJ_OFFSET = 0x1;
export const ADJ_FREQUENCY = 0x2;
export const ADJ_MAXERROR = 0x4;
export const ADJ_ESTERROR = 0x8;
export const ADJ_STATUS = 0x10;
export const ADJ_TIMECONST = 0x20;
export const ADJ_NANO = 0x2000;
export const ADJ_SETOFFSET = 0x100;
export const ADJ_TICK = 0x4000;

/** Bits of `timex.status`. */
export const STA_PLL = 0x01;
export const STA_INS = 0x10;
export const STA_DEL = 0x20;
export const STA_UNSYNC = 0x40;
export const STA_FREQHOLD = 0x80;
/** `timex.offset` is in nanoseconds; else in microseconds. */
export const STA_NANO = 0x2000;

/** The result of `ntp_adjtime` when the clock is not synchronised. */
export const TIME_ERROR = 5;

/** Microseconds that the kernel adds to `maxerror` each second (MAXFREQ of linux/timex.h). */
export const ERROR_GROWTH_US = 500n;

/**
 * Microseconds at which Linux stops `maxerror` and calls the clock unsynchronised: MAXDISP of RFC
 * 5905, section 7.2. macOS does neither. There `maxerror` grows by what has passed since 1970 before
 * anybody has set it, and so is beyond this at once.
 */
export const MAXDISP_US = 16_000_000n;

/** Units of `timex.freq` in a frequency of 1: 16 bits of it are fractions of a ppm. */
export const FREQUENCY_UNITS = 65536e6;

/** Microseconds of a tick (USER_HZ is 100) that runs as fast as the oscillator. */
export const TICK = 10_000;

/** By how much a clock is made to run faster than its oscillator, as a fraction. */
export function frequencyOf(kernel: BigInt64Array): number {
  const tick = Number(kernel[timex.tick]) || TICK;
  return Number(kernel[timex.freq]) / FREQUENCY_UNITS + (tick - TICK) / TICK;
}
