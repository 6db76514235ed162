/**
 * Setting and steering the machine's clock, through libc. Linux and macOS have
 * the same discipline for it, which the kernel carries out by itself (Mills and
 * Kamp: The Nanokernel, PTTI 2000).
 *
 * @module
 */

import { errno, type Libc, LIBC_PATHS, openLibc } from "../libc/libc.ts";
import {
  ADJ_ESTERROR,
  ADJ_FREQUENCY,
  ADJ_MAXERROR,
  ADJ_NANO,
  ADJ_OFFSET,
  ADJ_SETOFFSET,
  ADJ_STATUS,
  ADJ_TICK,
  ADJ_TIMECONST,
  CLOCK_MONOTONIC_RAW,
  CLOCK_REALTIME,
  ERROR_GROWTH_US,
  FREQUENCY_UNITS,
  frequencyOf,
  MAXDISP_US,
  STA_DEL,
  STA_FREQHOLD,
  STA_INS,
  STA_PLL,
  STA_UNSYNC,
  TICK,
  TIME_ERROR,
  timex,
} from "../libc/timex.ts";
import type { Leap } from "../ntp/packet.ts";
import { SECOND } from "../ntp/timestamp.ts";

/** What the kernel is told about its clock. */
export interface Steering {
  /**
   * Nanoseconds to be added gradually, instead of what is left of the last time; negative if the
   * clock is ahead. The kernel adds {@linkcode ClockSetter.gain} of the rest in each second, so that
   * this ends by itself.
   */
  readonly phase: number;
  /**
   * By how much the clock is to run faster than its oscillator, as a fraction, at most 500 ppm;
   * `null` leaves that as it is.
   */
  readonly frequency: number | null;
  /** How wrong the clock is at most and probably, in seconds; `null` if it is not synchronised. */
  readonly error: { readonly maximum: number; readonly estimated: number } | null;
  /** The leap second at the end of the day. */
  readonly leap: Leap;
}

/** Sets a clock. What fails throws, with a sentence, and leaves the clock as it was. */
export interface ClockSetter {
  /** Adds nanoseconds to the clock at once; a negative number sets it back. What steered it ends. */
  step(by: bigint): void;
  /**
   * Adds nanoseconds to the clock gradually; a negative number makes it lose them. What is left of
   * an earlier call is dropped. The machine's clock is slewed by whole microseconds, 500 ppm fast.
   */
  slew(by: bigint): void;
  /**
   * Steers the clock, and ends a slew.
   *
   * @returns Has another program steered it since the last call, or told the kernel of its error?
   */
  steer(steering: Steering): boolean;
  /** The part of a phase that goes in a second. */
  readonly gain: number;
  /** Seconds that should be between two calls of `steer`, at least. */
  readonly steeringSeconds: number;
  /** By how much the clock runs faster than its oscillator, now, as a fraction. */
  readonly frequency: number;
  /**
   * Does another program seem to keep the clock, or has it until lately? A tsync is not told from one
   * that was killed.
   */
  readonly isKeptByOther: boolean;
}

const EPERM = 1;

/** Nanoseconds by which a clock that was stepped may still be off, where that takes two calls. */
const STEP_ERROR = 2000n;

/** Attempts to step a clock that well. */
const STEPS = 3;

/** The part of a phase that Linux removes in a second (its SHIFT_PLL). */
export const LINUX_GAIN = 1 / 4;

/** How tsync steers: the kernel removes a phase, and leaves the frequency alone meanwhile. */
const STEERED = STA_PLL | STA_FREQHOLD;

/**
 * Opens the machine's clock for setting, and makes sure that it may be set.
 *
 * @param paths Where to look for libc. Default: where Linux and macOS have it.
 * @returns What sets the clock; disposing of it unloads libc.
 * @throws {Error} with a sentence, if libc may not be loaded (Deno's `--allow-ffi`) or is at none
 * of the paths, or the clock may not be set: that takes root, or `CAP_SYS_TIME` on Linux.
 */
export function openClockSetter(paths: readonly string[] = LIBC_PATHS): ClockSetter & Disposable {
  const libc = openLibc(paths);
  if (libc === null) {
    throw new Error(
      "cannot set the system clock: libc is not at any of the paths that may be loaded " +
        `(${paths.join(", ")})`,
    );
  }
  errno(libc); // A first call through FFI can change errno itself: here that does no harm.
  try {
    return new LibcSetter(libc);
  } catch (error) {
    libc[Symbol.dispose]();
    throw error;
  }
}

class LibcSetter implements ClockSetter, Disposable {
  readonly gain: number;
  readonly steeringSeconds: number;
  readonly #libc: Libc & Disposable;
  readonly #step: (by: bigint) => void;
  /** What the kernel said when it was steered last; `null` if it was not, or that is over. */
  #steered: BigInt64Array | null = null;

  constructor(libc: Libc & Disposable) {
    this.#libc = libc;
    const isLinux = libc.__errno_location !== null;
    // XNU's waits for a second without a call before it does anything.
    this.gain = isLinux ? LINUX_GAIN : 1 / 16;
    this.steeringSeconds = isLinux ? 1 : 4;
    this.#step = isLinux ? (by) => this.#addOffset(by) : (by) => {
      this.#setTime(by);
      this.slew(0n); // XNU would go on with what is left of an earlier one.
    };
    // Writing what it says already changes nothing, and takes the privilege.
    const kernel = this.#read();
    kernel[timex.modes] = BigInt(ADJ_ESTERROR);
    this.#adjust(kernel, "cannot set the system clock");
  }

  step(by: bigint): void {
    if (this.#time(CLOCK_REALTIME) + by < 0n) {
      throw new Error("cannot set the system clock: it does not go back beyond 1970");
    }
    this.#step(by);
    this.#steered = null;
  }

  slew(by: bigint): void {
    // Both parts have the same sign. On macOS the microseconds are the low half of these 64 bits.
    const microseconds = (by + (by < 0n ? -500n : 500n)) / 1000n;
    const delta = BigInt64Array.of(microseconds / 1_000_000n, microseconds % 1_000_000n);
    this.#check(this.#libc.adjtime(delta, 0n), "cannot slew the system clock");
  }

  steer({ phase, frequency, error, leap }: Steering): boolean {
    // What is left of an earlier `adjtime` would be added, too.
    if (this.#steered === null) this.slew(0n);
    const kernel = this.#read();
    const isDisturbed = this.#steered !== null && !follows(this.#steered, kernel);
    // A kernel whose clock was set has forgotten a leap second that is due.
    if (kernel[timex.maxerror]! >= MAXDISP_US) this.#stopSteering();
    let modes = ADJ_OFFSET | ADJ_STATUS | ADJ_TIMECONST | ADJ_NANO;
    const leaps = leap === "insert" ? STA_INS : leap === "delete" ? STA_DEL : 0;
    kernel[timex.status] = BigInt(STEERED | leaps | (error === null ? STA_UNSYNC : 0));
    kernel[timex.constant] = 0n;
    kernel[timex.offset] = BigInt(Math.round(phase));
    // Some programs change the length of the tick; the kernel has none on macOS.
    const isTickChanged = kernel[timex.tick] !== BigInt(TICK) && kernel[timex.tick] !== 0n;
    if (frequency !== null || isTickChanged) {
      modes |= ADJ_FREQUENCY | (isTickChanged ? ADJ_TICK : 0);
      // The kernel keeps it within 500 ppm.
      const wanted = Math.round((frequency ?? frequencyOf(kernel)) * FREQUENCY_UNITS);
      kernel[timex.freq] = BigInt(wanted);
      kernel[timex.tick] = BigInt(TICK);
    }
    if (error !== null) {
      modes |= ADJ_MAXERROR | ADJ_ESTERROR;
      kernel[timex.maxerror] = BigInt(Math.ceil(error.maximum * 1e6));
      kernel[timex.esterror] = BigInt(Math.ceil(error.estimated * 1e6));
    }
    kernel[timex.modes] = BigInt(modes);
    this.#adjust(kernel, "cannot steer the system clock");
    this.#steered = error === null ? null : kernel;
    return isDisturbed;
  }

  get frequency(): number {
    return frequencyOf(this.#read());
  }

  get isKeptByOther(): boolean {
    const kernel = new BigInt64Array(timex.words);
    const isSynchronised = this.#adjust(kernel, "cannot ask the system clock") !== TIME_ERROR;
    return isSynchronised && steeringOf(kernel) !== STEERED;
  }

  [Symbol.dispose](): void {
    this.#libc[Symbol.dispose]();
  }

  /** Has the kernel add an offset to its clock: no time is lost. */
  #addOffset(by: bigint): void {
    const kernel = new BigInt64Array(timex.words);
    const nanoseconds = (by % SECOND + SECOND) % SECOND;
    kernel[timex.modes] = BigInt(ADJ_SETOFFSET | ADJ_NANO);
    kernel[timex.time] = (by - nanoseconds) / SECOND;
    kernel[timex.time + 1] = nanoseconds;
    this.#adjust(kernel, "cannot set the system clock");
  }

  /** Only then does the kernel plan a leap second anew. */
  #stopSteering(): void {
    const kernel = new BigInt64Array(timex.words);
    kernel[timex.modes] = BigInt(ADJ_STATUS);
    kernel[timex.status] = BigInt(STA_UNSYNC);
    this.#adjust(kernel, "cannot steer the system clock");
  }

  /** Sets the clock, and again by what was lost between reading and setting it. */
  #setTime(by: bigint): void {
    const ahead = () => this.#time(CLOCK_REALTIME) - this.#time(CLOCK_MONOTONIC_RAW);
    ahead(); // The first calls are the slowest.
    const wanted = ahead() + by;
    for (let i = 0, left = by; i < STEPS; i++) {
      const time = this.#time(CLOCK_REALTIME) + left;
      const nanoseconds = (time % SECOND + SECOND) % SECOND;
      const timespec = BigInt64Array.of((time - nanoseconds) / SECOND, nanoseconds);
      const result = this.#libc.clock_settime(CLOCK_REALTIME, timespec);
      this.#check(result, "cannot set the system clock");
      left = wanted - ahead();
      if (left < STEP_ERROR && -left < STEP_ERROR) return;
    }
  }

  #time(clock: number): bigint {
    const timespec = new BigInt64Array(2);
    const result = this.#libc.clock_gettime(clock, timespec);
    this.#check(result, "cannot read the system clock");
    return timespec[0]! * SECOND + timespec[1]!;
  }

  #read(): BigInt64Array {
    const kernel = new BigInt64Array(timex.words);
    this.#adjust(kernel, "cannot ask the system clock");
    return kernel;
  }

  /** @returns The kernel's `TIME_` state. */
  #adjust(kernel: BigInt64Array, what: string): number {
    const state = this.#libc.ntp_adjtime(kernel);
    this.#check(state < 0 ? state : 0, what);
    return state;
  }

  #check(result: number, what: string): void {
    if (result === 0) return;
    const number = errno(this.#libc);
    const why = number === EPERM ? NO_PRIVILEGE : `the system refuses it (error ${number})`;
    throw new Error(`${what}: ${why}`);
  }
}

const NO_PRIVILEGE = "it takes a privilege; use sudo, or on Linux give it to the program: " +
  "sudo setcap cap_sys_time+ep FILE";

/** Is the kernel as it was, but for the time that has passed? */
function follows(before: BigInt64Array, now: BigInt64Array): boolean {
  if (frequencyOf(before) !== frequencyOf(now) || steeringOf(before) !== steeringOf(now)) {
    return false;
  }
  // The kernel itself forgets them, when the clock is set or the machine sleeps.
  if (now[timex.maxerror]! >= MAXDISP_US) return true;
  const grown = now[timex.maxerror]! - before[timex.maxerror]!;
  return before[timex.esterror] === now[timex.esterror] &&
    grown >= 0n && grown % ERROR_GROWTH_US === 0n;
}

/** What the status says of how the clock is steered. */
function steeringOf(kernel: BigInt64Array): number {
  return Number(kernel[timex.status]! & BigInt(STEERED));
}
