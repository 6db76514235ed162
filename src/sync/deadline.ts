/**
 * Waiting, and for how long.
 *
 * @module
 */

import type { Clock, Timers } from "../clock/clock.ts";
import { nanoseconds } from "../ntp/timestamp.ts";

/** Waits for something that cannot be cancelled. @throws The signal's reason, if it is aborted. */
export async function race<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const onAbort = () => reject(signal.reason);
  signal.addEventListener("abort", onAbort);
  try {
    signal.throwIfAborted();
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

/** Sleeps. @throws The signal's reason, if it is aborted. */
export async function sleep(timers: Timers, seconds: number, signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const cancel = timers.after(seconds, resolve);
  await race(promise, signal).finally(cancel);
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
    this.signal = AbortSignal.any([outer, this.#controller.signal]);
    this.#clock = clock;
    this.#timers = timers;
    this.#outer = outer;
    this.#span = nanoseconds(seconds);
    this.#due = clock.monotonic() + this.#span;
    this.#watch();
  }

  /** Starts the time again, after a pause of so many seconds. */
  renew(pause: number): void {
    this.#due = this.#clock.monotonic() + nanoseconds(pause) + this.#span;
  }

  /** Sleeps, and goes on when the time is up. @throws The outer signal's reason. */
  pause(seconds: number): Promise<void> {
    return sleep(this.#timers, seconds, this.signal).catch(() => this.#outer.throwIfAborted());
  }

  /** Stops the timer. */
  end(): void {
    this.#cancel();
  }

  #watch(): void {
    const left = Number(this.#due - this.#clock.monotonic()) / 1e9;
    if (left <= 0) this.#controller.abort();
    else this.#cancel = this.#timers.after(left, () => this.#watch());
  }
}
