/**
 * A clock that agrees with the servers', and says by how much it can be wrong.
 *
 * @module
 */

import { carry, type Estimate } from "../estimate/offset_tracker.ts";
import { type Clock, type CrossTimestamp, crossTimestamp, stepped } from "./clock.ts";

/**
 * A moment, as a {@linkcode SyncedClock} shows it. The bounds hold if the servers' clock has not
 * been set since the last poll, and the frequency is within 15 ppm (NTP's PHI) of what it was
 * between the last two polls: over the polls in use, about an hour of them, and since then.
 */
export interface SyncedTime {
  /** The likely time, in nanoseconds since the Unix epoch. */
  readonly time: bigint;
  /** The earliest it can be, in nanoseconds since the Unix epoch. */
  readonly earliest: bigint;
  /** The latest it can be, in nanoseconds since the Unix epoch. */
  readonly latest: bigint;
}

/** How far the system clock is from a {@linkcode SyncedClock}, at one moment. */
export interface ClockOffset {
  /** What the system clock showed then: nanoseconds since the Unix epoch. */
  readonly localTime: bigint;
  /** Seconds to add to the system clock for the likely time. */
  readonly offset: number;
  /** Seconds by which that can be wrong, at most. */
  readonly errorBound: number;
  /**
   * The frequency of the servers' clock against the system clock, which the kernel may make run
   * faster or slower than its oscillator: a fraction.
   */
  readonly frequency: number;
  /** The most by which the frequency can be wrong, in either direction: a fraction. */
  readonly frequencyBound: number;
}

/**
 * The local oscillator, corrected by an estimate of its error. The system clock is only watched: if
 * it is set, or the machine sleeps, this clock is not valid until the next estimate. A
 * {@linkcode Watch} keeps one.
 *
 * @example
 * ```ts
 * import { assert } from "@std/assert";
 * import { compareTimes, serve, Watch } from "tsync";
 *
 * const server = await serve({ hosts: ["127.0.0.1"], port: 0 });
 * const watch = new Watch({ servers: [`127.0.0.1:${server.addresses[0]!.port}`] });
 * assert(watch.clock.now() === null); // The time is not known yet.
 * for await (const { state } of watch) {
 *   assert(state === "synchronised");
 *   const first = watch.clock.now()!;
 *   const second = watch.clock.now()!;
 *   assert(compareTimes(first, second) !== "after"); // `null` as long as their bounds overlap.
 *   break;
 * }
 * await server.stop();
 * ```
 */
export class SyncedClock {
  readonly #clock: Clock;
  readonly #slew: number;
  #estimate: Estimate | null = null;
  /** The local clock's two timelines when they were last compared. */
  #reference: CrossTimestamp;
  #last = 0n;

  /**
   * Makes a clock that is not valid until {@linkcode set} is called.
   *
   * @param clock The local clock, on whose monotonic timeline the estimates are.
   * @param slew How fast, as a fraction, its system clock may be slewed on purpose. Default 0, but
   * 500 ppm are always tolerated.
   */
  constructor(clock: Clock, slew = 0) {
    this.#clock = clock;
    this.#slew = slew;
    this.#reference = crossTimestamp(clock);
  }

  /** Goes on with another estimate; with `null` the clock is no longer valid. */
  set(estimate: Estimate | null): void {
    this.#estimate = estimate;
  }

  /** Call this after setting the system clock on purpose: this clock stays valid then. */
  rebase(): void {
    this.#reference = crossTimestamp(this.#clock);
  }

  /**
   * Checks whether the system clock was set, or the machine slept, since the last call. Call it
   * about once a second: a change of less than a thousandth of that time is not noticed.
   *
   * @returns `true` if neither has happened; if `false`, the clock is no longer valid.
   */
  check(): boolean {
    const now = crossTimestamp(this.#clock);
    const well = !stepped(this.#reference, now, this.#slew);
    this.#reference = now;
    if (!well) this.#estimate = null;
    return well;
  }

  /**
   * The time, now. Between polls it goes on, and its bounds grow by how much the frequency can be
   * wrong.
   *
   * @param backward May `time` go back, if the one before turns out to have been late? Default: no,
   * it stands still meanwhile.
   * @returns `null` if the clock is not valid: not yet, or no longer.
   */
  now(backward = false): SyncedTime | null {
    if (this.#estimate === null) return null;
    const now = crossTimestamp(this.#clock, 1);
    if (stepped(this.#reference, now, this.#slew)) return null;
    const { offset, lower, upper } = carry(this.#estimate, now.monotonic);
    const earliest = now.monotonic + lower;
    let time = now.monotonic + offset;
    let latest = now.monotonic + upper;
    if (time < this.#last && !backward) {
      time = this.#last;
      if (latest < time) latest = time;
    } else this.#last = time;
    return { time, earliest, latest };
  }

  /** How far the system clock is from this one, now. @returns `null` if this one is not valid. */
  systemOffset(): ClockOffset | null {
    if (this.#estimate === null) return null;
    const now = crossTimestamp(this.#clock);
    if (stepped(this.#reference, now, this.#slew)) return null;
    const { offset, lower, upper } = carry(this.#estimate, now.monotonic);
    const width = upper - offset > offset - lower ? upper - offset : offset - lower;
    const { frequency, frequencyBound } = this.#estimate;
    const own = this.#clock.state()?.frequency ?? 0;
    return {
      localTime: now.realtime,
      offset: Number(offset + now.monotonic - now.realtime) / 1e9,
      errorBound: Number(width + now.error) / 1e9,
      frequency: frequency - own,
      frequencyBound,
    };
  }
}

/**
 * Which of two moments came first? They may be from two machines that keep to the same servers.
 *
 * @returns Whether `a` was before or after `b`; `null` if their bounds overlap, so that it cannot
 * be told.
 */
export function compareTimes(a: SyncedTime, b: SyncedTime): "before" | "after" | null {
  if (a.latest < b.earliest) return "before";
  return b.latest < a.earliest ? "after" : null;
}
