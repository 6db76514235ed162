/**
 * Messages in C's layout: memory that does not move, `msghdr`s in it, and the
 * control data that comes with a message.
 *
 * @module
 */

import { MAX_MESSAGE_SIZE } from "../../ntp/mac.ts";
import { PACKET_SIZE } from "../../ntp/packet.ts";
import { SECOND } from "../../ntp/timestamp.ts";
import { errno, type Libc } from "../../libc/libc.ts";
import * as c from "../../libc/structures.ts";

/** Finds the kernel's timestamp in control data. @returns Nanoseconds since the Unix epoch, or 0. */
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

/** Rounds up to a multiple of 8, as control data is aligned (CMSG_ALIGN). */
export function align(length: number): number {
  return (length + 7) & ~7;
}

/** Bytes for a socket's address. */
export const NAME = 32;

/** Bytes for control data: a timestamp and the address that was asked. */
export const CONTROL = 128;

/** One buffer large enough that V8 never moves it: the structures in it hold addresses within it. */
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

  /** Allocates bytes. @returns Their offset. */
  take(size: number): number {
    const start = this.#used;
    this.#used += align(size);
    return start;
  }

  /** Writes the address of offset `to` at offset `at`. */
  point(at: number, to: number): void {
    this.view.setBigUint64(at, this.#base + BigInt(to), true);
  }

  slice(start: number, size: number): Uint8Array<ArrayBuffer> {
    return this.bytes.subarray(start, start + size);
  }
}

/** Fills in a `msghdr` for one buffer. @returns The offset of its `iovec`. */
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

/** The IP address in a `sockaddr_in` or `sockaddr_in6`; IPv4 if it is an IPv4-mapped one. */
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

/** What a call returns in place of a number of bytes if it would block. */
export const WOULD_BLOCK: number = -c.EAGAIN;

/** The result of a call that failed: {@linkcode WOULD_BLOCK}, or another negated error number. */
function errorResult(libc: Libc): number {
  const number = errno(libc);
  return number === c.EINTR ? WOULD_BLOCK : -number;
}

const SENDING = c.MSG_DONTWAIT | c.MSG_NOSIGNAL;

/** Converted once, so that it need not be between a timestamp and the wire. */
const WHOLE = BigInt(PACKET_SIZE);

/**
 * Sends as much as fits without waiting.
 *
 * @returns The number of bytes; {@linkcode WOULD_BLOCK}, or another negated error number.
 */
export function sendNow(libc: Libc, fd: number, bytes: Uint8Array<ArrayBuffer>): number {
  const size = bytes.length === PACKET_SIZE ? WHOLE : BigInt(bytes.length);
  const count = libc.send(fd, bytes, size, SENDING);
  return count >= 0 ? count : errorResult(libc);
}

/** Receives one message at a time, from any socket, with its timestamp. */
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
    const size = MAX_MESSAGE_SIZE;
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
   * Receives at most `most` bytes without waiting.
   *
   * @returns The number of bytes, 0 at the end of a stream; {@linkcode WOULD_BLOCK}, or another
   * negated error number.
   */
  receive(fd: number, most: number, flags = 0): number {
    this.#view.setUint32(this.#length, most, true);
    this.#view.setUint32(this.#controlLength, CONTROL, true);
    const count = this.#libc.recvmsg(fd, this.#header, c.MSG_DONTWAIT | flags);
    return count >= 0 ? count : errorResult(this.#libc);
  }

  /** When the last of them arrived: nanoseconds since the Unix epoch; 0 if the kernel does not say. */
  arrived(): bigint {
    const length = this.#view.getUint32(this.#controlLength, true);
    return arrivalTime(this.#view, this.#control, this.#control + length);
  }
}
