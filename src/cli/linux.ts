/**
 * What only Linux can do.
 *
 * @module
 */

import type { Libc } from "../libc/libc.ts";
import { linuxLibc } from "../net/linux/sockets.ts";

/** Linux's libc. @param flag What it is for. @throws {Error} with a sentence, if it is not there. */
export function libcFor(flag: string): Libc {
  const libc = linuxLibc();
  if (libc !== null) return libc;
  const why = Deno.build.os === "linux"
    ? "libc is not at any of the paths that may be loaded (--allow-ffi)"
    : `only Linux is supported, and this is ${Deno.build.os}`;
  throw new Error(`cannot use ${flag}: ${why}`);
}
