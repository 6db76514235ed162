/**
 * What libc does with sockets that Deno opened: enable kernel timestamps, and
 * answer a datagram from the address that was asked. Deno does everything else
 * (opening, listening, connecting, closing), with its permissions and errors.
 *
 * @module
 */

import type { BoundSocket } from "../network.ts";
import { errno, type Libc, sharedLibc } from "../../libc/libc.ts";
import { OptionError } from "../errors.ts";
import { canonical, expand, type SocketAddress } from "../address.ts";
import { descriptorOf } from "../descriptors.ts";
import * as c from "../../libc/structures.ts";

/** Linux's libc, ready for {@linkcode errno}; `null` if it may not be loaded, or on other systems. */
export function linuxLibc(): Libc | null {
  if (Deno.build.os !== "linux") return null;
  const libc = sharedLibc();
  if (libc !== null) errno(libc);
  return libc;
}

/** The same. @throws {OptionError} where it is unavailable, and with it kernel timestamps. */
export function requireLinuxLibc(): Libc {
  const libc = linuxLibc();
  if (libc !== null) return libc;
  const why = Deno.build.os === "linux"
    ? "libc is not at any of the paths that may be loaded (--allow-ffi)"
    : `only Linux has them, and this is ${Deno.build.os}`;
  throw new OptionError(`cannot use kernel timestamps: ${why}`, "timestamps");
}

/** The system's text for an error number. */
export function numberedErrorText(libc: Libc, number: number): string {
  const bytes = new Uint8Array(256);
  libc.__xpg_strerror_r(number, bytes, BigInt(bytes.length));
  return new TextDecoder().decode(bytes.subarray(0, bytes.indexOf(0)));
}

/** An error for an error number, of the class that Deno would throw. */
export function socketError(libc: Libc, number: number): Error {
  const text = numberedErrorText(libc, number);
  switch (number) {
    case c.ECONNREFUSED:
      return new Deno.errors.ConnectionRefused(text);
    case c.ECONNRESET:
      return new Deno.errors.ConnectionReset(text);
    default:
      return new Error(text);
  }
}

/** @throws the call's error if its result is negative. */
export function check(libc: Libc, result: number): number {
  if (result >= 0) return result;
  throw socketError(libc, errno(libc));
}

function setOption(
  libc: Libc,
  fd: number,
  level: number,
  option: number,
  value: number,
): void {
  check(libc, libc.setsockopt(fd, level, option, new Int32Array([value]), 4));
}

/**
 * Enables kernel timestamps on a socket; a listener's connections inherit them.
 *
 * @returns The descriptor; `null` if `fd` is, or if the kernel refuses, as in some sandboxes.
 */
export function enableTimestamps(libc: Libc, fd: number | null): number | null {
  const on = new Int32Array([1]);
  if (fd === null || libc.setsockopt(fd, c.SOL_SOCKET, c.SO_TIMESTAMPNS, on, 4) < 0) return null;
  return fd;
}

let stamping = false;

/**
 * The kernel takes a moment to start timestamping, and stops when the last socket that needs it is
 * closed. Keeps it going between a client's sockets with one that is never closed; it is not opened
 * by Deno, which would report a leak.
 */
export function keepTimestampsEnabled(libc: Libc): void {
  if (stamping) return;
  stamping = true;
  enableTimestamps(libc, libc.socket(c.AF_INET, c.SOCK_DGRAM | c.SOCK_CLOEXEC, 0));
}

/** Bytes that may wait to be read, if the kernel allows it. */
const RECEIVE_BUFFER = 1 << 20;

/**
 * Takes over a server's socket of Deno's, which Deno must not read from any more: enables kernel
 * timestamps, and for datagrams the address that was asked.
 *
 * @param zone The zone of the address, which Deno omits.
 * @returns `null` if the kernel does not timestamp it; the socket is closed then.
 */
export function bindSocket(
  libc: Libc,
  socket: { readonly addr: Deno.Addr; close(): void },
  zone: string,
): BoundSocket | null {
  const { transport, hostname, port } = socket.addr as Deno.NetAddr;
  const fd = enableTimestamps(libc, descriptorOf(socket.addr as Deno.NetAddr));
  if (fd === null) {
    socket.close();
    return null;
  }
  try {
    if (transport === "tcp") {
      // Connections inherit it.
      setOption(libc, fd, c.IPPROTO_TCP, c.TCP_NODELAY, 1);
    } else {
      if (hostname.includes(":")) setOption(libc, fd, c.IPPROTO_IPV6, c.IPV6_RECVPKTINFO, 1);
      else setOption(libc, fd, c.IPPROTO_IP, c.IP_PKTINFO, 1);
      setOption(libc, fd, c.SOL_SOCKET, c.SO_RCVBUF, RECEIVE_BUFFER);
    }
  } catch (error) {
    socket.close();
    throw error;
  }
  const address = { hostname: hostname + zone, port };
  return { transport, fd, address, close: () => socket.close() };
}

/**
 * Encodes a `struct sockaddr_in` or `sockaddr_in6`.
 *
 * @throws {Error} if the address's zone is not an interface of this machine.
 */
export function encodeAddress(
  libc: Libc,
  { hostname, port }: SocketAddress,
): Uint8Array<ArrayBuffer> {
  const v6 = hostname.includes(":");
  const bytes = new Uint8Array(v6 ? c.sockaddr_in6.size : c.sockaddr_in.size);
  const view = new DataView(bytes.buffer);
  view.setUint16(c.sockaddr_in.sin_family, v6 ? c.AF_INET6 : c.AF_INET, true);
  view.setUint16(c.sockaddr_in.sin_port, port);
  if (v6) {
    const zone = hostname.split("%")[1];
    bytes.set(parseIPv6(hostname), c.sockaddr_in6.sin6_addr);
    if (zone !== undefined) {
      const index = libc.if_nametoindex(new TextEncoder().encode(`${zone}\0`));
      if (index === 0 && !/^\d+$/.test(zone)) throw new Error(`there is no interface ${zone}`);
      view.setUint32(c.sockaddr_in6.sin6_scope_id, index || Number(zone), true);
    }
  } else bytes.set(hostname.split(".").map(Number), c.sockaddr_in.sin_addr);
  return bytes;
}

/** The 16 bytes of an IPv6 address. */
function parseIPv6(text: string): Uint8Array {
  const groups = expand(canonical(text)).split(":").map((group) => parseInt(group, 16));
  return Uint8Array.from(groups.flatMap((group) => [group >> 8, group & 255]));
}
