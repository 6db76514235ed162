/**
 * A thread that is to run for as long as the server does.
 *
 * @module
 */

import type { Timers } from "../clock/clock.ts";

/** Seconds before a thread that has died is replaced. */
const RESTART_PAUSE = 1;

/** What a thread is there for, and who is told of it. */
export interface ThreadRole {
  /** Its module. */
  readonly module: URL;
  /** Told of each message that it sends. */
  readonly onMessage: (message: unknown) => void;
  /** Told why it has died, before another takes its place. */
  readonly onFailure: (error: string) => void;
}

/** A worker, and another one if it dies. */
export class Thread {
  /** Is there one at present? */
  running = false;
  readonly #role: ThreadRole;
  readonly #timers: Timers;
  #order: unknown;
  #worker: Worker | null = null;
  #ended = false;
  #cancelRestart = () => {};

  constructor(role: ThreadRole, timers: Timers) {
    this.#role = role;
    this.#timers = timers;
  }

  /** @param order The first message that each worker is sent. */
  start(order: unknown): void {
    this.#order = order;
    this.running = true;
    const worker = this.#worker = new Worker(this.#role.module, { type: "module" });
    worker.onmessage = ({ data }: MessageEvent) => this.#role.onMessage(data);
    worker.onerror = (event) => {
      event.preventDefault();
      this.failed(event.message);
    };
    worker.postMessage(order);
  }

  /** Sends a message, if there is a worker to take it. */
  post(message: unknown): void {
    if (this.running) this.#worker!.postMessage(message);
  }

  /** The worker cannot go on: it is replaced. */
  failed(error: string): void {
    this.#discard();
    if (this.#ended) return;
    this.#cancelRestart = this.#timers.after(RESTART_PAUSE, () => this.start(this.#order));
    this.#role.onFailure(error);
  }

  /** Ends it at once, if it has not ended, and starts no other. */
  end(): void {
    this.#ended = true;
    this.#cancelRestart();
    this.#discard();
  }

  #discard(): void {
    this.running = false;
    this.#worker?.terminate();
    this.#worker = null;
  }
}
