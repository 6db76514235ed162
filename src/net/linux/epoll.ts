/**
 * Waiting for many sockets at once: epoll(7), level-triggered. What stays
 * ready goes to the end of the kernel's list, so all get their turn.
 *
 * @module
 */

import { Arena } from "./message.ts";
import { check, socketError } from "./sockets.ts";
import { errno, type Libc } from "../../libc/libc.ts";
import * as c from "../../libc/structures.ts";

/** What is told at once. */
const EVENTS = 256;

/** Sockets to be waited for. */
export class Epoll {
  readonly #libc: Libc;
  readonly #fd: number;
  readonly #view: DataView;
  readonly #events: Uint8Array<ArrayBuffer>;
  readonly #event: Uint8Array<ArrayBuffer>;

  /** @throws {Error} if there is no descriptor for it. */
  constructor(libc: Libc) {
    this.#libc = libc;
    const arena = new Arena(libc, (EVENTS + 1) * c.epoll_event.size);
    this.#view = arena.view;
    this.#events = arena.slice(0, EVENTS * c.epoll_event.size);
    this.#event = arena.slice(this.#events.length, c.epoll_event.size);
    this.#fd = check(libc, libc.epoll_create1(c.EPOLL_CLOEXEC));
  }

  /** Waits for what a socket has to be read. @returns The error's number if it cannot, else 0. */
  add(fd: number): number {
    return this.#control(c.EPOLL_CTL_ADD, fd, c.EPOLLIN);
  }

  /** From now on waits for what one has to be read, or else for room to write. */
  change(fd: number, to: "read" | "write"): void {
    this.#control(c.EPOLL_CTL_MOD, fd, to === "read" ? c.EPOLLIN : c.EPOLLOUT);
  }

  /** Waits for one no more. Closing it does the same. */
  remove(fd: number): void {
    this.#control(c.EPOLL_CTL_DEL, fd, 0);
  }

  /**
   * Waits until something is ready, broken or over.
   *
   * @returns How many are, {@linkcode ready} says which.
   */
  wait(milliseconds: number): number {
    const count = this.#libc.epoll_wait(this.#fd, this.#events, EVENTS, milliseconds);
    if (count >= 0) return count;
    const number = errno(this.#libc);
    if (number === c.EINTR) return 0;
    throw socketError(this.#libc, number);
  }

  /**
   * The same, while the event loop goes on; nothing else may be done with it meanwhile but to add,
   * change and remove sockets.
   */
  async waitAside(milliseconds: number): Promise<number> {
    const count = await this.#libc.epoll_wait_aside(this.#fd, this.#events, EVENTS, milliseconds);
    return count >= 0 ? count : this.wait(0); // Whose error can be told: that was another thread's.
  }

  /** The descriptor of one that is ready. */
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
