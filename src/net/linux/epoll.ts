/**
 * Waits for many sockets at once: epoll(7), level-triggered. A socket that
 * stays ready moves to the end of the kernel's list, so none is starved.
 *
 * @module
 */

import { Arena } from "./message.ts";
import { check, socketError } from "./sockets.ts";
import { errno, type Libc } from "../../libc/libc.ts";
import * as c from "../../libc/structures.ts";

/** Sockets reported by one call. */
const MAX_EVENTS = 256;

export class Epoll {
  readonly #libc: Libc;
  readonly #fd: number;
  readonly #view: DataView;
  readonly #events: Uint8Array<ArrayBuffer>;
  readonly #event: Uint8Array<ArrayBuffer>;

  /** @throws {Error} if no descriptor is free. */
  constructor(libc: Libc) {
    this.#libc = libc;
    const arena = new Arena(libc, (MAX_EVENTS + 1) * c.epoll_event.size);
    this.#view = arena.view;
    this.#events = arena.slice(0, MAX_EVENTS * c.epoll_event.size);
    this.#event = arena.slice(this.#events.length, c.epoll_event.size);
    this.#fd = check(libc, libc.epoll_create1(c.EPOLL_CLOEXEC));
  }

  /** Adds a socket, to wait until it is readable. @returns An error number, or 0. */
  add(fd: number): number {
    return this.#control(c.EPOLL_CTL_ADD, fd, c.EPOLLIN);
  }

  /** Waits from now on until a socket is readable, or until it is writable. */
  change(fd: number, to: "read" | "write"): void {
    this.#control(c.EPOLL_CTL_MOD, fd, to === "read" ? c.EPOLLIN : c.EPOLLOUT);
  }

  /** Removes a socket. Closing it does the same. */
  remove(fd: number): void {
    this.#control(c.EPOLL_CTL_DEL, fd, 0);
  }

  /**
   * Waits until a socket is ready, broken or at its end.
   *
   * @returns How many are; {@linkcode ready} says which.
   */
  wait(timeoutMs: number): number {
    const count = this.#libc.epoll_wait(this.#fd, this.#events, MAX_EVENTS, timeoutMs);
    if (count >= 0) return count;
    const number = errno(this.#libc);
    if (number === c.EINTR) return 0;
    throw socketError(this.#libc, number);
  }

  /**
   * The same, while the event loop keeps running. Until it resolves, only {@linkcode add},
   * {@linkcode change} and {@linkcode remove} may be called.
   */
  async waitAsync(timeoutMs: number): Promise<number> {
    const count = await this.#libc.epoll_wait_async(this.#fd, this.#events, MAX_EVENTS, timeoutMs);
    return count >= 0 ? count : this.wait(0); // Its errno was another thread's: ask again.
  }

  /** The descriptor of a socket that is ready. */
  ready(i: number): number {
    return this.#view.getInt32(i * c.epoll_event.size + c.epoll_event.data, true);
  }

  close(): void {
    this.#libc.close(this.#fd);
  }

  #control(operation: number, fd: number, events: number): number {
    const at = this.#event.byteOffset;
    this.#view.setUint32(at + c.epoll_event.events, events, true);
    this.#view.setInt32(at + c.epoll_event.data, fd, true);
    const result = this.#libc.epoll_ctl(this.#fd, operation, fd, this.#event);
    return result === 0 ? 0 : errno(this.#libc);
  }
}
