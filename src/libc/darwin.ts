/**
 * What macOS numbers otherwise than Linux, or alone has, from time.h,
 * sys/resource.h and signal.h. A test checks it against Darwin's headers.
 *
 * @module
 */

import type { Libc } from "./libc.ts";

/** Stands still while the machine sleeps, as CLOCK_MONOTONIC_RAW does on Linux but not here. */
export const CLOCK_UPTIME_RAW = 8;
export const RLIMIT_NOFILE = 8;
export const SIGTSTP = 18;

/** Is it macOS's libc? Only Linux's has `__errno_location`. */
export function isDarwin(libc: Libc): boolean {
  return libc.__errno_location === null;
}
