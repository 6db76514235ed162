/**
 * Messages as C has them: memory that does not move, `msghdr`s in it, and what
 * the kernel says of a message beside its bytes.
 *
 * @module
 */

import { PACKET_SIZE } from "../../ntp/packet.ts";
import { SECOND } from "../../ntp/timestamp.ts";
import { errno, type Libc } from "../../libc/libc.ts";
import * as c from "../../libc/structures.ts";

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
    this.#base = libc.memcpy(this.bytes, 0n, 0n);
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

/** There is nothing to be read, or no room to write: a result, as others are a number of bytes. */
export const WOULD_BLOCK: number = -c.EAGAIN;

/** The error of a call that failed, as a result: {@linkcode WOULD_BLOCK}, or less than 0 too. */
function failure(libc: Libc): number {
  const number = errno(libc);
  return number === c.EINTR ? WOULD_BLOCK : -number;
}

const SENDING = c.MSG_DONTWAIT | c.MSG_NOSIGNAL;

/** Made once: it is not to be made between a timestamp and the wire. */
const WHOLE = BigInt(PACKET_SIZE);

/** Sends what there is room for, never waiting. @returns How many bytes; {@linkcode WOULD_BLOCK}, or less than 0 if it is broken. */
export function sendNow(libc: Libc, fd: number, bytes: Uint8Array<ArrayBuffer>): number {
  const size = bytes.length === PACKET_SIZE ? WHOLE : BigInt(bytes.length);
  const count = libc.send(fd, bytes, size, SENDING);
  return count >= 0 ? count : failure(libc);
}

/** One message at a time, from any socket: its bytes, and when they came. */
export class Receiver {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly #libc: Libc;
  readonly #view: DataView;
  readonly #header: Uint8Array<ArrayBuffer>;
  readonly #controlLength: number;
  readonly #length: number;
  readonly #control: number;

  constructor(libc: Libc) {
    this.#libc = libc;
    const size = PACKET_SIZE;
    const arena = new Arena(libc, c.msghdr.size + c.iovec.size + align(size) + CONTROL);
    const header = arena.take(c.msghdr.size);
    const bytes = arena.take(size);
    this.#control = arena.take(CONTROL);
    const vector = layOut(arena, header, null, bytes, size, this.#control);
    this.bytes = arena.slice(bytes, size);
    this.#view = arena.view;
    this.#header = arena.slice(header, c.msghdr.size);
    this.#controlLength = header + c.msghdr.msg_controllen;
    this.#length = vector + c.iovec.iov_len;
  }

  /**
   * Never waits.
   *
   * @returns How many bytes came, 0 at the end; {@linkcode WOULD_BLOCK}, or less than 0 if it is broken.
   */
  receive(fd: number, most: number, flags = 0): number {
    this.#view.setUint32(this.#length, most, true);
    this.#view.setUint32(this.#controlLength, CONTROL, true);
    const count = this.#libc.recvmsg(fd, this.#header, c.MSG_DONTWAIT | flags);
    return count >= 0 ? count : failure(this.#libc);
  }

  /** When the last of them came: nanoseconds since the Unix epoch; 0 if the kernel does not say. */
  arrived(): bigint {
    const length = this.#view.getUint32(this.#controlLength, true);
    return arrivalTime(this.#view, this.#control, this.#control + length);
  }
}
