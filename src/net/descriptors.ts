/**
 * What Deno's connections cannot do. Those with TLS cannot be told to send at
 * once: Nagle's algorithm held up a handshake by 40 ms, and the first reply by
 * as much again. And `close` may not end one: with TLS, Deno waits in the
 * background, for ever, until a silent peer lets it say goodbye; without, Deno
 * before 2.9 waits until a write that is under way has ended. Either is one
 * call of libc, for which the descriptor is missing: it is found by its
 * address. Without libc nothing is done.
 *
 * @module
 */

import { openLibc } from "../clock/libc.ts";
import type { SocketAddress } from "./address.ts";

const SYMBOLS = {
  getpeername: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  getsockname: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
  shutdown: { parameters: ["i32", "i32"], result: "i32" },
} as const;

/** The same numbers on Linux (netinet/in.h, netinet/tcp.h, sys/socket.h) and macOS. */
const IPPROTO_TCP = 6;
const TCP_NODELAY = 1;
const SHUT_RDWR = 2;

/**
 * `struct sockaddr_in` and `sockaddr_in6` (netinet/in.h): told apart by their
 * size, and with port and address at the same place, on Linux and macOS.
 */
const SOCKADDR = {
  port: 2,
  v4: { size: 16, address: 4 },
  v6: { size: 28, address: 8 },
} as const;

/** Descriptors in a row that are none of a connection, after which there will be no more. */
const GAP = 4096;

let library: Deno.DynamicLibrary<typeof SYMBOLS> | null | undefined;

/** Makes all connections that a listener will accept send at once: they inherit it. */
export function setNoDelay(listening: SocketAddress): void {
  const wanted = key(listening);
  const on = new Int32Array([1]);
  for (const fd of descriptors("getsockname", new Set([wanted]))) {
    library!.symbols.setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, on, on.byteLength);
  }
}

/** Ends the connections with these addresses at once, whatever Deno still does with them. */
export function hangUp(peers: readonly SocketAddress[]): void {
  for (const fd of descriptors("getpeername", new Set(peers.map(key)))) {
    library!.symbols.shutdown(fd, SHUT_RDWR);
  }
}

function* descriptors(
  by: "getpeername" | "getsockname",
  wanted: ReadonlySet<string>,
): Generator<number> {
  library ??= openLibc(SYMBOLS);
  if (library === null) return;
  const { [by]: nameOf } = library.symbols;
  const bytes = new Uint8Array(SOCKADDR.v6.size);
  const size = new Uint32Array(1);
  for (let fd = 0, last = 0; fd - last < GAP; fd++) {
    size[0] = bytes.length;
    if (nameOf(fd, bytes, size) !== 0) continue;
    last = fd;
    if (wanted.has(keyOf(bytes, size[0]!))) yield fd;
  }
}

function key({ hostname, port }: SocketAddress): string {
  const host = hostname.includes(":") ? `[${hostname}]` : hostname;
  return `${port} ${new URL(`http://${host}`).hostname}`;
}

function keyOf(bytes: Uint8Array, size: number): string {
  const view = new DataView(bytes.buffer);
  const port = view.getUint16(SOCKADDR.port);
  const { v4, v6 } = SOCKADDR;
  if (size === v4.size) {
    return `${port} ${bytes.subarray(v4.address, v4.address + 4).join(".")}`;
  }
  const groups = Array.from(
    { length: 8 },
    (_, i) => view.getUint16(v6.address + 2 * i).toString(16),
  );
  return key({ hostname: groups.join(":"), port });
}
