/**
 * What libc does with sockets that Deno has opened: the kernel says when
 * something came, and a datagram is answered from the address that was asked.
 * Whatever is not done here (looking up, opening, listening, connecting,
 * closing) is Deno's, and so are the errors and permissions of it.
 *
 * @module
 */

import type { BoundSocket } from "../network.ts";
import { errno, type Libc, sharedLibc } from "../../libc/libc.ts";
import { OptionError } from "../errors.ts";
import { canonical, type SocketAddress } from "../address.ts";
import { descriptorOf } from "../descriptors.ts";
import * as c from "../../libc/structures.ts";

/** Linux's libc, if it may be loaded, ready to tell errors; `null` on other systems. */
export function linuxLibc(): Libc | null {
  if (Deno.build.os !== "linux") return null;
  const libc = sharedLibc();
  if (libc !== null) errno(libc);
  return libc;
}

/** The same. @throws {OptionError} where it and the kernel's timestamps are unavailable. */
export function requireLinuxLibc(): Libc {
  const libc = linuxLibc();
  if (libc !== null) return libc;
  const why = Deno.build.os === "linux"
    ? "libc is not at any of the paths that may be loaded (--allow-ffi)"
    : `only Linux has them, and this is ${Deno.build.os}`;
  throw new OptionError(`cannot have the kernel's timestamps: ${why}`, "timestamps");
}

/** An error number in words. */
export function numberedErrorText(libc: Libc, number: number): string {
  const bytes = new Uint8Array(256);
  libc.__xpg_strerror_r(number, bytes, BigInt(bytes.length));
  return new TextDecoder().decode(bytes.subarray(0, bytes.indexOf(0)));
}

/** An error number in the words, and as the class, of Deno. */
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

/** @throws what the call's error means, if it failed. */
export function check(libc: Libc, result: number): number {
  if (result >= 0) return result;
  throw socketError(libc, errno(libc));
}

export function setOption(
  libc: Libc,
  fd: number,
  level: number,
  option: number,
  value: number,
): void {
  check(libc, libc.setsockopt(fd, level, option, new Int32Array([value]), 4));
}

/**
 * Has the kernel stamp what comes by a socket, and by connections of one that listens.
 *
 * @returns Its descriptor; `null` if that was not found, or the kernel does not stamp, as in some
 * sandboxes.
 */
export function stampedDescriptor(libc: Libc, fd: number | null): number | null {
  const on = new Int32Array([1]);
  if (fd === null || libc.setsockopt(fd, c.SOL_SOCKET, c.SO_TIMESTAMPNS, on, 4) < 0) return null;
  return fd;
}

let stamping = false;

/**
 * The kernel needs a moment to begin with stamping, and ends it with the last such socket. Who opens
 * one after another keeps it at it: by a socket that is never closed, which of Deno's would look
 * forgotten.
 */
export function keepStamping(libc: Libc): void {
  if (stamping) return;
  stamping = true;
  stampedDescriptor(libc, libc.socket(c.AF_INET, c.SOCK_DGRAM | c.SOCK_CLOEXEC, 0));
}

/** Bytes that may wait to be read, if the kernel grants so many. */
const RECEIVE_BUFFER = 1 << 20;

/**
 * Has the kernel stamp what comes by a socket of Deno's, which is not to be read from any more; of
 * a datagram it also says to which address.
 *
 * @param zone Of the address, which Deno leaves out.
 * @returns `null` if it cannot: the socket is closed then.
 */
export function bindSocket(
  libc: Libc,
  socket: { readonly addr: Deno.Addr; close(): void },
  zone: string,
): BoundSocket | null {
  const { transport, hostname, port } = socket.addr as Deno.NetAddr;
  const fd = stampedDescriptor(libc, descriptorOf(socket.addr as Deno.NetAddr));
  if (fd === null) {
    socket.close();
    return null;
  }
  try {
    if (transport === "tcp") {
      // Connections inherit what their listener has: this and the stamps.
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
 * `struct sockaddr_in` or `sockaddr_in6`, in an array of its own.
 *
 * @throws {Error} if its zone is no interface here.
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
  const [head = "", tail] = canonical(text).split("::");
  const groups = (part: string) =>
    part === "" ? [] : part.split(":").map((each) => parseInt(each, 16));
  const [first, last] = [groups(head), groups(tail ?? "")];
  const zeros = Array<number>(8 - first.length - last.length).fill(0);
  return Uint8Array.from(
    [...first, ...zeros, ...last].flatMap((group) => [group >> 8, group & 255]),
  );
}
