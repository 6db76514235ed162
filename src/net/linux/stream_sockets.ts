/**
 * A server's streams through libc, with kernel timestamps.
 *
 * @module
 */

import { numberedErrorText } from "./sockets.ts";
import type { Epoll } from "./epoll.ts";
import { Arena, decodeAddress, NAME, Receiver, sendNow } from "./message.ts";
import { errno, type Libc } from "../../libc/libc.ts";
import * as c from "../../libc/structures.ts";

export interface Accepted {
  readonly fd: number;
  /** The client's IP address. */
  readonly address: string;
}

/** A server's streams. None of the calls wait. */
export interface StreamSockets {
  /** Where {@linkcode receive} puts bytes, 48 at most. */
  readonly received: Uint8Array;
  /**
   * Accepts a connection, to wait until it is readable.
   *
   * @returns `null` if this would block, `"lost"` if the connection is gone already.
   * @throws {NoRoom} if there cannot be another connection.
   */
  accept(listener: number): Accepted | "lost" | null;
  /**
   * Receives at most `most` bytes.
   *
   * @returns The number of bytes, 0 at the end of the stream; `WOULD_BLOCK`, or another
   * negated error number.
   */
  receive(fd: number, most: number): number;
  /** When the last of them arrived: nanoseconds since the Unix epoch; 0 if the kernel does not say. */
  arrived(): bigint;
  /** Sends as {@linkcode sendNow} does. */
  send(fd: number, bytes: Uint8Array<ArrayBuffer>): number;
  /** Waits from now on until a connection is readable, or until it is writable. */
  waitFor(fd: number, what: "read" | "write"): void;
  /**
   * Starts to wait for connections to a listener.
   *
   * @throws {NoRoom} if it cannot.
   */
  addListener(listener: number): void;
  removeListener(listener: number): void;
  close(fd: number): void;
}

/** There cannot be another connection, mostly for want of descriptors or memory. The message is the system's. */
export class NoRoom extends Error {
  override readonly name = "NoRoom";
}

/** Unread bytes that are discarded before a connection is closed. */
const MAX_DISCARDED = 1n << 20n;

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

  waitFor(fd: number, what: "read" | "write"): void {
    this.#epoll.change(fd, what);
  }

  addListener(listener: number): void {
    this.#add(listener);
  }

  removeListener(listener: number): void {
    this.#epoll.remove(listener);
  }

  close(fd: number): void {
    // Closing with bytes unread resets the connection, and the client may lose the last reply.
    this.#libc.recv(fd, this.received, MAX_DISCARDED, c.MSG_DONTWAIT | c.MSG_TRUNC);
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
