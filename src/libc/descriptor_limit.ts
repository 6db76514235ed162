/**
 * The limit on open files, sockets among them.
 *
 * @module
 */

import { isDarwin, RLIMIT_NOFILE as RLIMIT_NOFILE_DARWIN } from "./darwin.ts";
import { type Libc, sharedLibc } from "./libc.ts";
import { RLIMIT_NOFILE } from "./structures.ts";

/**
 * Raises the soft limit, which is often far below the hard one: 1024 on Linux, 256 on macOS. Deno's
 * own command does so too, but a compiled program does not.
 *
 * @param wanted How many files the process wants to have open at once.
 * @returns How many it may: at least as many, or as many as the system allows; `null` if that
 * cannot be told, for want of libc.
 */
export function raiseDescriptorLimit(
  wanted: number,
  libc: Libc | null = sharedLibc(),
): number | null {
  if (libc === null) return null;
  const resource = isDarwin(libc) ? RLIMIT_NOFILE_DARWIN : RLIMIT_NOFILE;
  const limit = new BigUint64Array(2); // A `struct rlimit`: soft and hard.
  if (libc.getrlimit(resource, limit) !== 0) return null;
  const [soft, hard] = limit as unknown as [bigint, bigint];
  if (soft < wanted) {
    limit[0] = least(BigInt(wanted), hard);
    if (libc.setrlimit(resource, limit) !== 0) limit[0] = soft;
  }
  return Number(least(limit[0]!, mostPerProcess(libc)));
}

/** What macOS's kernel allows a process, whatever `getrlimit` says; on Linux `getrlimit` says it. */
function mostPerProcess(libc: Libc): bigint {
  const most = new Int32Array([2 ** 31 - 1]);
  if (isDarwin(libc)) {
    const name = new TextEncoder().encode("kern.maxfilesperproc\0");
    libc.sysctlbyname(name, most, BigUint64Array.of(BigInt(most.byteLength)), 0n, 0n);
  }
  return BigInt(most[0]!);
}

function least(a: bigint, b: bigint): bigint {
  return a < b ? a : b;
}
