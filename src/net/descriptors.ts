/**
 * Finds the descriptors of Deno's sockets, which Deno hides, by their
 * addresses. With a descriptor, libc can do what Deno cannot: enable kernel
 * timestamps, and two things for connections with TLS. One is to disable
 * Nagle's algorithm, which delayed a handshake by 40 ms and the first reply by
 * another 40. The other is to close at once: with TLS, Deno's `close` waits
 * forever for a silent peer to finish the closing handshake, and before 2.9,
 * even without TLS, for a pending write. Without libc nothing is found.
 *
 * @module
 */

import { sharedLibc } from "../libc/libc.ts";
import { canonical, type SocketAddress } from "./address.ts";
import {
  IPPROTO_TCP,
  SO_ACCEPTCONN,
  SO_TYPE,
  SOCK_DGRAM,
  sockaddr_in,
  sockaddr_in6,
  SOL_SOCKET,
  TCP_NODELAY,
} from "../libc/structures.ts";

/** The same on Linux (sys/socket.h) and macOS, like IPPROTO_TCP and TCP_NODELAY. */
const SHUT_RDWR = 2;

/** The search ends after this many descriptors in a row that are not sockets. */
const MAX_GAP = 4096;

/** Disables Nagle's algorithm on all connections that a listener will accept: they inherit it. */
export function setNoDelay(listening: SocketAddress): void {
  const on = new Int32Array([1]);
  for (const { fd, name } of sockets("getsockname", new Set([listening.port]))) {
    if (name !== key(listening)) continue;
    sharedLibc()!.setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, on, on.byteLength);
  }
}

/**
 * The descriptor of a listener or a datagram socket.
 *
 * @returns `null` if it is not found.
 */
export function descriptorOf({ transport, hostname, port }: Deno.NetAddr): number | null {
  for (const { fd, name } of sockets("getsockname", new Set([port]))) {
    if (name !== key({ hostname, port })) continue;
    // A listener's connections have its address too.
    const found = transport === "udp"
      ? option(fd, SO_TYPE) === SOCK_DGRAM
      : option(fd, SO_ACCEPTCONN) === 1;
    if (found) return fd;
  }
  return null;
}

/** The descriptor of a connection. @returns `null` if it is not found. */
export function connectionDescriptor({ remote, local }: Ends): number | null {
  for (const { fd, name } of sockets("getpeername", new Set([remote.port]))) {
    if (name === key(remote) && nameOf("getsockname", fd) === key(local)) return fd;
  }
  return null;
}

export interface Ends {
  readonly local: SocketAddress;
  readonly remote: SocketAddress;
}

/** Shuts down those connections that are still open at once, whatever Deno is waiting for. */
export function hangUp(connections: readonly Ends[]): void {
  const wanted = new Set(connections.map(({ remote, local }) => `${key(remote)} ${key(local)}`));
  const ports = new Set(connections.map(({ remote }) => remote.port));
  for (const { fd, name } of sockets("getpeername", ports)) {
    const local = nameOf("getsockname", fd);
    if (wanted.has(`${name} ${local}`)) sharedLibc()!.shutdown(fd, SHUT_RDWR);
  }
}

/** Reads a socket option, on Linux. @returns `null` if it cannot. */
function option(fd: number, name: number): number | null {
  const value = new Int32Array(1);
  size[0] = value.byteLength;
  const result = sharedLibc()!.getsockopt(fd, SOL_SOCKET, name, value, size);
  return result === 0 ? value[0]! : null;
}

const bytes = new Uint8Array(sockaddr_in6.size);
const view = new DataView(bytes.buffer);
const size = new Uint32Array(1);

/** Descriptors of sockets whose address has one of these ports. */
function* sockets(
  by: "getpeername" | "getsockname",
  ports: ReadonlySet<number>,
): Generator<{ readonly fd: number; readonly name: string }> {
  if (sharedLibc() === null) return;
  for (let fd = 0, last = 0; fd - last < MAX_GAP; fd++) {
    if (!ask(by, fd)) continue;
    last = fd;
    // Checking the port first is cheap: there may be ten thousand sockets.
    if (ports.has(view.getUint16(sockaddr_in.sin_port))) yield { fd, name: keyOf() };
  }
}

function nameOf(by: "getpeername" | "getsockname", fd: number): string | null {
  return ask(by, fd) ? keyOf() : null;
}

/** Writes a socket's address to `bytes`. @returns Whether it has one that is IPv4 or IPv6. */
function ask(by: "getpeername" | "getsockname", fd: number): boolean {
  size[0] = bytes.length;
  if (sharedLibc()![by](fd, bytes, size) !== 0) return false;
  // The size tells the families apart on Linux and macOS, where port and address have one layout.
  return size[0] === sockaddr_in.size || size[0] === sockaddr_in6.size;
}

function key({ hostname, port }: SocketAddress): string {
  return `${port} ${canonical(hostname)}`;
}

function keyOf(): string {
  const port = view.getUint16(sockaddr_in.sin_port);
  const { sin_addr } = sockaddr_in;
  if (size[0] === sockaddr_in.size) {
    return `${port} ${bytes.subarray(sin_addr, sin_addr + 4).join(".")}`;
  }
  const groups = Array.from(
    { length: 8 },
    (_, i) => view.getUint16(sockaddr_in6.sin6_addr + 2 * i).toString(16),
  );
  return key({ hostname: groups.join(":"), port });
}
