/**
 * Waiting, and for how long.
 *
 * @module
 */

import type { Clock, Timers } from "../clock/clock.ts";
import { nanoseconds } from "../ntp/timestamp.ts";

/** Sleeps. @throws The signal's reason, if it is aborted. */
export async function wait(timers: Timers, seconds: number, signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const done = () => resolve();
  const cancel = timers.after(seconds, done);
  signal.addEventListener("abort", done);
  if (signal.aborted) resolve();
  await promise;
  cancel();
  signal.removeEventListener("abort", done);
  signal.throwIfAborted();
}

/** A time limit. Time during which the machine is suspended does not count. */
export class Deadline {
  /** Aborted when the time is up, or when the outer signal is. */
  readonly signal: AbortSignal;
  readonly #controller = new AbortController();
  readonly #clock: Clock;
  readonly #timers: Timers;
  readonly #outer: AbortSignal;
  readonly #span: bigint;
  /** On the monotonic timeline. */
  #due: bigint;
  #cancel = () => {};

  constructor(clock: Clock, timers: Timers, seconds: number, outer: AbortSignal) {
    this.#clock = clock;
    this.#timers = timers;
    this.#outer = outer;
    this.signal = AbortSignal.any([outer, this.#controller.signal]);
    this.#span = nanoseconds(seconds);
    this.#due = clock.monotonic() + this.#span;
    this.#watch();
  }

  /** Starts the time again, after a pause of so many seconds. */
  renew(pause: number): void {
    this.#due = this.#clock.monotonic() + nanoseconds(pause) + this.#span;
  }

  /** Stops the timer. */
  end(): void {
    this.#cancel();
  }

  /** Waits for something that cannot be cancelled. */
  async race<T>(promise: Promise<T>): Promise<T> {
    const { promise: aborted, reject } = Promise.withResolvers<never>();
    const onAbort = () => reject(this.signal.reason);
    this.signal.addEventListener("abort", onAbort);
    try {
      this.signal.throwIfAborted();
      return await Promise.race([promise, aborted]);
    } finally {
      this.signal.removeEventListener("abort", onAbort);
    }
  }

  sleep(seconds: number): Promise<void> {
    return wait(this.#timers, seconds, this.signal);
  }

  /** Sleeps, and goes on when the time is up. */
  pause(seconds: number): Promise<void> {
    return this.sleep(seconds).catch(() => this.#outer.throwIfAborted());
  }

  #watch(): void {
    const left = Number(this.#due - this.#clock.monotonic()) / 1e9;
    if (left <= 0) this.#controller.abort();
    else this.#cancel = this.#timers.after(left, () => this.#watch());
  }
}
