/**
 * Messages as C has them: memory that does not move, `msghdr`s in it, and what
 * the kernel says of a message beside its bytes.
 *
 * @module
 */

import { SECOND } from "../../ntp/timestamp.ts";
import type { Libc } from "./socket.ts";
import * as c from "./structures.ts";

/** Finds the kernel's time of arrival among a message's control data. @returns Nanoseconds since the Unix epoch, or 0. */
export function arrivalTime(view: DataView, start: number, end: number): bigint {
  for (let at = start; at + c.cmsghdr.size <= end;) {
    const length = view.getUint32(at + c.cmsghdr.cmsg_len, true);
    const level = view.getInt32(at + c.cmsghdr.cmsg_level, true);
    const type = view.getInt32(at + c.cmsghdr.cmsg_type, true);
    if (level === c.SOL_SOCKET && type === c.SCM_TIMESTAMPNS) {
      const time = at + c.cmsghdr.size;
      return view.getBigInt64(time + c.timespec.tv_sec, true) * SECOND +
        view.getBigInt64(time + c.timespec.tv_nsec, true);
    }
    if (length < c.cmsghdr.size) break;
    at += align(length);
  }
  return 0n;
}

/** Control data is laid out in words of 8 bytes (CMSG_ALIGN). */
export function align(length: number): number {
  return (length + 7) & ~7;
}

/** Room for a socket's address. */
export const NAME = 32;

/** Room for control data: a timestamp and the address that was asked. */
export const CONTROL = 128;

/** Memory for C: one buffer, large enough that V8 never moves it, since C keeps addresses within it. */
export class Arena {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly view: DataView;
  readonly #base: bigint;
  #used = 0;

  constructor(libc: Libc, size: number) {
    this.bytes = new Uint8Array(Math.max(size, 4096));
    this.view = new DataView(this.bytes.buffer);
    this.#base = libc.addressOf(this.bytes, this.bytes, 0n);
  }

  /** Sets bytes aside. @returns Where they begin. */
  take(size: number): number {
    const start = this.#used;
    this.#used += align(size);
    return start;
  }

  /** Writes the address of a place into another place. */
  point(at: number, to: number): void {
    this.view.setBigUint64(at, this.#base + BigInt(to), true);
  }

  slice(start: number, size: number): Uint8Array<ArrayBuffer> {
    return this.bytes.subarray(start, start + size);
  }
}

/** Fills in a `msghdr` for one buffer. @returns Where its `iovec` is. */
export function layOut(
  arena: Arena,
  header: number,
  name: number | null,
  buffer: number,
  length: number,
  control: number,
): number {
  const vector = arena.take(c.iovec.size);
  arena.point(vector + c.iovec.iov_base, buffer);
  arena.view.setBigUint64(vector + c.iovec.iov_len, BigInt(length), true);
  if (name !== null) arena.point(header + c.msghdr.msg_name, name);
  arena.point(header + c.msghdr.msg_iov, vector);
  arena.view.setBigUint64(header + c.msghdr.msg_iovlen, 1n, true);
  arena.point(header + c.msghdr.msg_control, control);
  return vector;
}

/** The IP address in a `sockaddr_in` or `sockaddr_in6`; a mapped one is IPv4's. */
export function decodeAddress(view: DataView, name: number): string {
  if (view.getUint16(name, true) === c.AF_INET) return dotted(view, name + c.sockaddr_in.sin_addr);
  const address = name + c.sockaddr_in6.sin6_addr;
  const mapped = view.getBigUint64(address) === 0n && view.getUint32(address + 8) === 0xffff;
  if (mapped) return dotted(view, address + 12);
  const groups = [];
  for (let k = 0; k < 16; k += 2) groups.push(view.getUint16(address + k).toString(16));
  return groups.join(":");
}

function dotted(view: DataView, at: number): string {
  return `${view.getUint8(at)}.${view.getUint8(at + 1)}.${view.getUint8(at + 2)}.${
    view.getUint8(at + 3)
  }`;
}
