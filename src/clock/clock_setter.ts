/**
 * Setting the machine's clock, through libc: the same functions on Linux and
 * macOS.
 *
 * @module
 */

import { SECOND } from "../ntp/timestamp.ts";
import { errno, LIBC_PATHS, openLibc } from "../libc/libc.ts";

/** Sets a clock. If that fails, both methods throw, with a sentence, and leave it unchanged. */
export interface ClockSetter {
  /** Adds nanoseconds to the clock at once; a negative number sets it back. */
  step(by: bigint): void;
  /**
   * Adds nanoseconds to the clock gradually; a negative number makes it lose them. What is left of
   * an earlier call is dropped. The machine's clock is slewed by whole microseconds.
   */
  slew(by: bigint): void;
}

const CLOCK_REALTIME = 0;
const EPERM = 1;

/**
 * Opens the machine's clock for setting. Opening it takes no privilege; setting it takes root's, or
 * `CAP_SYS_TIME` on Linux.
 *
 * @param paths Where to look for libc. Default: where Linux and macOS have it.
 * @returns What sets the clock; disposing of it unloads libc.
 * @throws {Error} with a sentence, if libc may not be loaded (Deno's `--allow-ffi`) or is at none
 * of the paths.
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
  const check = (result: number, what: string) => {
    if (result === 0) return;
    const number = errno(libc);
    if (number === EPERM) throw new Error(`${what}: ${NO_PRIVILEGE}`);
    throw new Error(`${what}: the system refuses it (error ${number})`);
  };
  return {
    step(by) {
      const time = new BigInt64Array(2);
      check(libc.clock_gettime(CLOCK_REALTIME, time), "cannot read the system clock");
      const [seconds, nanoseconds] = split(time[0]! * SECOND + time[1]! + by);
      time[0] = seconds;
      time[1] = nanoseconds;
      check(libc.clock_settime(CLOCK_REALTIME, time), "cannot set the system clock");
    },
    slew(by) {
      // Both parts have the same sign. On macOS the microseconds are the low half of these 64 bits.
      const microseconds = (by + (by < 0n ? -500n : 500n)) / 1000n;
      const delta = BigInt64Array.of(microseconds / 1_000_000n, microseconds % 1_000_000n);
      check(libc.adjtime(delta, 0n), "cannot slew the system clock");
    },
    [Symbol.dispose]: () => libc[Symbol.dispose](),
  };
}

const NO_PRIVILEGE = "it takes a privilege; use sudo, or on Linux give it to the program: " +
  "sudo setcap cap_sys_time+ep FILE";

/** Whole seconds, rounded down, and the nanoseconds beyond. */
function split(instant: bigint): [bigint, bigint] {
  const nanoseconds = (instant % SECOND + SECOND) % SECOND;
  return [(instant - nanoseconds) / SECOND, nanoseconds];
}
