/**
 * Datagrams to a socket of this machine: unix(7). Deno could send them only from a socket that is
 * bound to a file of its own, which takes the permission to write.
 *
 * @module
 */

import { errno, type Libc } from "../../libc/libc.ts";
import * as c from "../../libc/structures.ts";

/**
 * Sends a datagram without waiting. Opens a socket each time, so a receiver that was started again
 * is found again.
 *
 * @param name The receiver's path, or `@` and its name in the abstract namespace.
 * @returns 0, or an error number: ENOENT or ECONNREFUSED if nobody receives there, EACCES if this
 * user may not send there, EAGAIN if too much waits to be received.
 */
export function sendUnixDatagram(
  libc: Libc,
  name: string,
  bytes: Uint8Array<ArrayBuffer>,
): number {
  const address = encodeName(name);
  if (address === null) return c.ENAMETOOLONG;
  const fd = libc.socket(c.AF_UNIX, c.SOCK_DGRAM | c.SOCK_CLOEXEC, 0);
  if (fd < 0) return errno(libc);
  try {
    if (libc.connect(fd, address, address.length) < 0) return errno(libc);
    const flags = c.MSG_DONTWAIT | c.MSG_NOSIGNAL;
    return libc.send(fd, bytes, BigInt(bytes.length), flags) < 0 ? errno(libc) : 0;
  } finally {
    libc.close(fd);
  }
}

/** Encodes a `struct sockaddr_un`. @returns `null` if the name does not fit. */
function encodeName(name: string): Uint8Array<ArrayBuffer> | null {
  const isAbstract = name.startsWith("@");
  const path = new TextEncoder().encode(isAbstract ? `\0${name.slice(1)}` : `${name}\0`);
  const { size, sun_path } = c.sockaddr_un;
  if (path.length > size - sun_path) return null;
  const bytes = new Uint8Array(sun_path + path.length);
  new DataView(bytes.buffer).setUint16(0, c.AF_UNIX, true);
  bytes.set(path, sun_path);
  return bytes;
}
