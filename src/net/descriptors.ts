/**
 * The descriptors of Deno's sockets, which it does not tell: they are found by
 * their addresses. With one, libc does what Deno cannot: have the kernel say
 * when something came, and two things for connections with TLS. They cannot be
 * told to send at once: Nagle's algorithm held up a handshake by 40 ms, and the
 * first reply by as much again. And `close` may not end one: with TLS, Deno
 * waits in the background, for ever, until a silent peer lets it say goodbye;
 * without, Deno before 2.9 waits until a write that is under way has ended.
 * Without libc nothing is found.
 *
 * @module
 */

import { sharedLibc } from "../libc/libc.ts";
import { canonical, type SocketAddress } from "./address.ts";
import {
  SO_ACCEPTCONN,
  SO_TYPE,
  SOCK_DGRAM,
  sockaddr_in,
  sockaddr_in6,
  SOL_SOCKET,
} from "../libc/structures.ts";

/** The same numbers on Linux (netinet/in.h, netinet/tcp.h, sys/socket.h) and macOS. */
const IPPROTO_TCP = 6;
const TCP_NODELAY = 1;
const SHUT_RDWR = 2;

/** Descriptors in a row that are none of a connection, after which there will be no more. */
const GAP = 4096;

/** Makes all connections that a listener will accept send at once: they inherit it. */
export function setNoDelay(listening: SocketAddress): void {
  const on = new Int32Array([1]);
  for (const { fd, name } of sockets("getsockname", new Set([listening.port]))) {
    if (name !== key(listening)) continue;
    sharedLibc()!.setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, on, on.byteLength);
  }
}

/**
 * The descriptor of a socket that listens for connections, or is there for datagrams.
 *
 * @returns `null` if it is not found.
 */
export function descriptorOf({ transport, hostname, port }: Deno.NetAddr): number | null {
  for (const { fd, name } of sockets("getsockname", new Set([port]))) {
    if (name !== key({ hostname, port })) continue;
    // Connections have their listener's address.
    const isIt = transport === "udp"
      ? option(fd, SO_TYPE) === SOCK_DGRAM
      : option(fd, SO_ACCEPTCONN) === 1;
    if (isIt) return fd;
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

/** Both ends of a connection. */
export interface Ends {
  readonly local: SocketAddress;
  readonly remote: SocketAddress;
}

/** Ends connections that are still open at once, whatever Deno waits for. */
export function hangUp(connections: readonly Ends[]): void {
  const wanted = new Set(connections.map(({ remote, local }) => `${key(remote)} ${key(local)}`));
  const ports = new Set(connections.map(({ remote }) => remote.port));
  for (const { fd, name } of sockets("getpeername", ports)) {
    const local = nameOf("getsockname", fd);
    if (wanted.has(`${name} ${local}`)) sharedLibc()!.shutdown(fd, SHUT_RDWR);
  }
}

/** On Linux. @returns `null` if there is no such option. */
function option(fd: number, name: number): number | null {
  const value = new Int32Array(1);
  size[0] = value.byteLength;
  const result = sharedLibc()!.getsockopt(fd, SOL_SOCKET, name, value, size);
  return result === 0 ? value[0]! : null;
}

const bytes = new Uint8Array(sockaddr_in6.size);
const view = new DataView(bytes.buffer);
const size = new Uint32Array(1);

/** Descriptors that have a name with one of these ports. */
function* sockets(
  by: "getpeername" | "getsockname",
  ports: ReadonlySet<number>,
): Generator<{ readonly fd: number; readonly name: string }> {
  if (sharedLibc() === null) return;
  for (let fd = 0, last = 0; fd - last < GAP; fd++) {
    if (!ask(by, fd)) continue;
    last = fd;
    // Only a few are looked at closely: there may be ten thousand.
    if (ports.has(view.getUint16(sockaddr_in.sin_port))) yield { fd, name: keyOf() };
  }
}

function nameOf(by: "getpeername" | "getsockname", fd: number): string | null {
  return ask(by, fd) ? keyOf() : null;
}

/** Writes a socket's name to `bytes`. @returns Does it have one, of the internet? */
function ask(by: "getpeername" | "getsockname", fd: number): boolean {
  size[0] = bytes.length;
  if (sharedLibc()![by](fd, bytes, size) !== 0) return false;
  // Told apart by their size, with port and address at the same place, macOS's are as Linux's.
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
