/**
 * Streams through libc: many for a server, one for a client, each with the
 * kernel's time of arrival.
 *
 * @module
 */

import { numberedErrorText, socketError } from "./sockets.ts";
import type { Epoll } from "./epoll.ts";
import { Arena, decodeAddress, NAME, Receiver, sendNow, WOULD_BLOCK } from "./message.ts";
import { errno, type Libc } from "../../libc/libc.ts";
import * as c from "../../libc/structures.ts";

/** Somebody who has connected. */
export interface Accepted {
  readonly fd: number;
  /** The client's IP address. */
  readonly address: string;
}

/** What a server does with streams. */
export interface StreamSockets {
  /** Where {@linkcode receive} puts what came: 48 bytes. */
  readonly received: Uint8Array;
  /**
   * Takes a connection, which is waited for from then on.
   *
   * @returns `null` if there is none, `"lost"` if it had ended already.
   * @throws {NoRoom} if there cannot be another one.
   */
  accept(listener: number): Accepted | "lost" | null;
  /**
   * Never waits.
   *
   * @returns How many bytes came, 0 at the end; {@linkcode WOULD_BLOCK}, or less than 0 if it is broken.
   */
  receive(fd: number, most: number): number;
  /** When the last of them came: nanoseconds since the Unix epoch; 0 if the kernel does not say. */
  arrived(): bigint;
  /** Never waits. @returns How many bytes were taken; {@linkcode WOULD_BLOCK}, or less than 0 if it is broken. */
  send(fd: number, bytes: Uint8Array<ArrayBuffer>): number;
  /** What to wait for next. At first it is something to read. */
  await(fd: number, what: "read" | "write"): void;
  /**
   * Waits for connections to a listener, or no more.
   *
   * @throws {NoRoom} if it cannot be waited for.
   */
  attend(listener: number): void;
  ignore(listener: number): void;
  close(fd: number): void;
}

/** There cannot be another connection, mostly for want of descriptors or memory. The message is the system's. */
export class NoRoom extends Error {
  override readonly name = "NoRoom";
}

/** Bytes that are thrown away at most. */
const UNREAD = 1n << 20n;

/** Those of Linux. */
export class LinuxStreams implements StreamSockets {
  readonly received: Uint8Array<ArrayBuffer>;
  readonly #libc: Libc;
  readonly #epoll: Epoll;
  readonly #receiver: Receiver;
  readonly #arena: Arena;
  readonly #name: Uint8Array<ArrayBuffer>;
  readonly #nameLength: Uint8Array<ArrayBuffer>;

  constructor(libc: Libc, epoll: Epoll) {
    this.#libc = libc;
    this.#epoll = epoll;
    this.#receiver = new Receiver(libc);
    this.received = this.#receiver.bytes;
    const arena = this.#arena = new Arena(libc, NAME + 8);
    this.#name = arena.slice(arena.take(NAME), NAME);
    this.#nameLength = arena.slice(arena.take(8), 4);
  }

  accept(listener: number): Accepted | "lost" | null {
    const libc = this.#libc;
    this.#arena.view.setUint32(this.#nameLength.byteOffset, NAME, true);
    const flags = c.SOCK_NONBLOCK | c.SOCK_CLOEXEC;
    const fd = libc.accept4(listener, this.#name, this.#nameLength, flags);
    if (fd < 0) {
      const number = errno(libc);
      if (number === c.EAGAIN || number === c.EINTR || number === c.EINVAL) return null;
      if (number === c.ECONNABORTED || number === c.EPERM || number === c.EPROTO) return "lost";
      throw this.#noRoom(number);
    }
    try {
      this.#add(fd);
    } catch (error) {
      libc.close(fd);
      throw error;
    }
    return { fd, address: decodeAddress(this.#arena.view, this.#name.byteOffset) };
  }

  receive(fd: number, most: number): number {
    return this.#receiver.receive(fd, most);
  }

  arrived(): bigint {
    return this.#receiver.arrived();
  }

  send(fd: number, bytes: Uint8Array<ArrayBuffer>): number {
    return sendNow(this.#libc, fd, bytes);
  }

  await(fd: number, what: "read" | "write"): void {
    this.#epoll.change(fd, what);
  }

  attend(listener: number): void {
    this.#add(listener);
  }

  ignore(listener: number): void {
    this.#epoll.remove(listener);
  }

  close(fd: number): void {
    // Closed with something unread, it would take back what was sent: it is thrown away.
    this.#libc.recv(fd, this.received, UNREAD, c.MSG_DONTWAIT | c.MSG_TRUNC);
    this.#libc.close(fd);
  }

  /** @throws {NoRoom} */
  #add(fd: number): void {
    const number = this.#epoll.add(fd);
    if (number !== 0) throw this.#noRoom(number);
  }

  #noRoom(number: number): NoRoom {
    return new NoRoom(numberedErrorText(this.#libc, number));
  }
}

const NO_BYTES = new Uint8Array();

/** A client's stream to one server. Nothing here waits. */
export class StreamSocket {
  /** What the clock showed just before bytes were last handed to the kernel. */
  departed = 0n;
  readonly #libc: Libc;
  readonly #fd: number;
  readonly #receiver: Receiver;

  /** @param fd Of a connection of Deno's that is stamped, and not to be read from any more. */
  constructor(libc: Libc, fd: number) {
    this.#libc = libc;
    this.#fd = fd;
    this.#receiver = new Receiver(libc);
  }

  /**
   * Takes what has come.
   *
   * @returns How many bytes, 0 at the end, and when the last of them came: nanoseconds since the
   * Unix epoch, 0 if the kernel does not say; `null` if nothing has.
   * @throws {Error} if the connection is broken.
   */
  receive(into: Uint8Array): { readonly count: number; readonly arrived: bigint } | null {
    const { bytes } = this.#receiver;
    const count = this.#receiver.receive(this.#fd, Math.min(into.length, bytes.length));
    if (count === WOULD_BLOCK) return null;
    if (count < 0) throw socketError(this.#libc, -count);
    into.set(bytes.subarray(0, count));
    return { count, arrived: this.#receiver.arrived() };
  }

  /**
   * Sends what there is room for.
   *
   * @param now Read at the very last.
   * @returns How many bytes.
   * @throws {Error} if the connection is broken.
   */
  send(bytes: Uint8Array<ArrayBuffer>, now: () => bigint): number {
    // What has not run for a while is slow: it runs once with nothing to send before it counts.
    now();
    sendNow(this.#libc, this.#fd, NO_BYTES);
    this.departed = now();
    const count = sendNow(this.#libc, this.#fd, bytes);
    if (count < 0 && count !== WOULD_BLOCK) throw socketError(this.#libc, -count);
    return Math.max(count, 0);
  }
}
