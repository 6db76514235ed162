/**
 * Sockets of Linux, through libc: what Deno's cannot do is say when the kernel
 * received something, and answer a datagram from the address that was asked.
 *
 * @module
 */

import { openLibc } from "../../clock/libc.ts";
import { canonical, type SocketAddress } from "../address.ts";
import * as c from "./structures.ts";

const SYMBOLS = {
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  connect: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  getsockname: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
  listen: { parameters: ["i32", "i32"], result: "i32" },
  accept4: { parameters: ["i32", "buffer", "buffer", "i32"], result: "i32" },
  shutdown: { parameters: ["i32", "i32"], result: "i32" },
  // Their results are ssize_t, of which 32 bits hold all that can come here.
  send: { parameters: ["i32", "buffer", "usize", "i32"], result: "i32" },
  recv: { parameters: ["i32", "buffer", "usize", "i32"], result: "i32" },
  recvmsg: { parameters: ["i32", "buffer", "i32"], result: "i32" },
  recvmmsg: { parameters: ["i32", "buffer", "u32", "i32", "usize"], result: "i32" },
  sendmmsg: { parameters: ["i32", "buffer", "u32", "i32"], result: "i32" },
  epoll_create1: { parameters: ["i32"], result: "i32" },
  epoll_ctl: { parameters: ["i32", "i32", "i32", "buffer"], result: "i32" },
  epoll_wait: { parameters: ["i32", "buffer", "i32", "i32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  if_nametoindex: { parameters: ["buffer"], result: "u32" },
  __errno_location: { parameters: [], result: "usize" },
  __xpg_strerror_r: { parameters: ["i32", "buffer", "usize"], result: "i32" },
  // Deno's own way to addresses and to what lies there needs permission for all libraries.
  addressOf: { name: "memcpy", parameters: ["buffer", "buffer", "usize"], result: "usize" },
  copyFrom: { name: "memcpy", parameters: ["buffer", "usize", "usize"], result: "usize" },
} as const;

/** The functions of libc that are used here. */
export type Libc = Deno.StaticForeignLibraryInterface<typeof SYMBOLS>;

let library: Deno.DynamicLibrary<typeof SYMBOLS> | null | undefined;

/** Linux's sockets, if libc may be loaded; opened at the first call. */
export function libcSockets(): Libc | null {
  if (Deno.build.os !== "linux") return null;
  library ??= openLibc(SYMBOLS);
  return library?.symbols ?? null;
}

/** The same. @throws {Error} a sentence, where they and their timestamps cannot be had. */
export function requireSockets(): Libc {
  const libc = libcSockets();
  if (libc !== null) return libc;
  const why = Deno.build.os === "linux"
    ? "libc is not at any of the paths that may be loaded (--allow-ffi)"
    : `only Linux has them, and this is ${Deno.build.os}`;
  throw new Error(`cannot have the kernel's timestamps: ${why}; do without --kernel-timestamps`);
}

/** Made before: making it could be a call that changes the error. */
const lastError = new Int32Array(1);

/** The last call's error. To be asked for at once. */
export function errno(libc: Libc): number {
  libc.copyFrom(lastError, libc.__errno_location(), 4n);
  return lastError[0]!;
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
    case c.EADDRINUSE:
      return new Deno.errors.AddrInUse(text);
    case c.EACCES:
      return new Deno.errors.PermissionDenied(text);
    case c.EADDRNOTAVAIL:
      return new Deno.errors.AddrNotAvailable(text);
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
 * Opens a socket of which the kernel stamps what comes.
 *
 * @param type `SOCK_STREAM` or `SOCK_DGRAM`, with flags.
 */
export function openSocket(libc: Libc, { hostname }: SocketAddress, type: number): number {
  const family = hostname.includes(":") ? c.AF_INET6 : c.AF_INET;
  const fd = check(libc, libc.socket(family, type | c.SOCK_CLOEXEC, 0));
  try {
    stamp(libc, fd);
  } catch (error) {
    libc.close(fd);
    throw error;
  }
  // The kernel needs a moment to begin with stamping, and ends it with the last such socket.
  if (!stamping) {
    stamping = true;
    stamp(libc, check(libc, libc.socket(c.AF_INET, c.SOCK_DGRAM | c.SOCK_CLOEXEC, 0)));
  }
  return fd;
}

let stamping = false;

function stamp(libc: Libc, fd: number): void {
  setOption(libc, fd, c.SOL_SOCKET, c.SO_TIMESTAMPNS, 1);
}

/** A server's socket. */
export interface BoundSocket {
  /** What comes by it: connections, or datagrams. */
  readonly transport: "tcp" | "udp";
  /** Its descriptor, good in all threads of this process. */
  readonly fd: number;
  /** Where it listens; a port of 0 has become the one that was picked. */
  readonly address: SocketAddress;
  /** Takes no more connections; whoever waits for some is woken. */
  shut(): void;
  /** Gives it back. Nobody may use its descriptor any more. */
  close(): void;
}

/** Bytes that may wait to be read, if the kernel grants so many. */
const RECEIVE_BUFFER = 1 << 20;

/** Connections that may wait to be accepted. */
export const BACKLOG = 4096;

/**
 * Binds a server's socket, of which the kernel says when something came; of a
 * datagram also to which address.
 *
 * @param address An IPv6 wildcard takes IPv4 too.
 * @throws {Deno.errors.AddrInUse | Deno.errors.PermissionDenied | Deno.errors.AddrNotAvailable}
 */
export function bindSocket(
  libc: Libc,
  transport: "tcp" | "udp",
  address: SocketAddress,
): BoundSocket {
  const isTcp = transport === "tcp";
  const isV6 = address.hostname.includes(":");
  const type = (isTcp ? c.SOCK_STREAM : c.SOCK_DGRAM) | c.SOCK_NONBLOCK;
  const fd = openSocket(libc, address, type);
  try {
    if (isV6) setOption(libc, fd, c.IPPROTO_IPV6, c.IPV6_V6ONLY, takesIPv4(address) ? 0 : 1);
    if (isTcp) {
      // Connections inherit what their listener has: this and the stamps.
      setOption(libc, fd, c.IPPROTO_TCP, c.TCP_NODELAY, 1);
      setOption(libc, fd, c.SOL_SOCKET, c.SO_REUSEADDR, 1);
    } else {
      if (isV6) setOption(libc, fd, c.IPPROTO_IPV6, c.IPV6_RECVPKTINFO, 1);
      else setOption(libc, fd, c.IPPROTO_IP, c.IP_PKTINFO, 1);
      setOption(libc, fd, c.SOL_SOCKET, c.SO_RCVBUF, RECEIVE_BUFFER);
    }
    const name = encodeAddress(libc, address);
    check(libc, libc.bind(fd, name, name.length));
    if (isTcp) check(libc, libc.listen(fd, BACKLOG));
    const size = new Uint32Array([name.length]);
    check(libc, libc.getsockname(fd, name, size));
    const port = new DataView(name.buffer).getUint16(c.sockaddr_in.sin_port);
    return {
      transport,
      fd,
      address: { hostname: spelled(address.hostname), port },
      shut: () => void libc.shutdown(fd, c.SHUT_RDWR),
      close: () => void libc.close(fd),
    };
  } catch (error) {
    libc.close(fd);
    throw error;
  }
}

/** An IPv6 address in its one spelling, with its zone; a mapped one as it is. */
function spelled(hostname: string): string {
  if (!hostname.includes(":") || hostname.includes(".")) return hostname;
  const zone = /%.*$/.exec(hostname)?.[0] ?? "";
  return canonical(hostname) + zone;
}

/** Is an IPv6 address the wildcard, or IPv4's as mapped? */
function takesIPv4({ hostname }: SocketAddress): boolean {
  return /^::(ffff:[^:]+:[^:]+)?$/.test(canonical(hostname));
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
