/**
 * A clock that agrees with the servers', and says how far it can be off.
 *
 * @module
 */

import { carry, type Estimate } from "../estimate/offset_tracker.ts";
import { type Clock, type CrossTimestamp, crossTimestamp, stepped } from "./clock.ts";

/**
 * A moment, as a {@linkcode SyncedClock} shows it. All are nanoseconds since the Unix epoch. The
 * bounds hold as long as the servers' clock is not set, and the frequency is within 15 ppm (NTP's
 * PHI) of what it was between the last two polls: over the polls in use, about an hour of them, and
 * afterwards.
 */
export interface SyncedTime {
  /** What the time probably is. */
  readonly time: bigint;
  /** The earliest it can be, */
  readonly earliest: bigint;
  /** and the latest. */
  readonly latest: bigint;
}

/**
 * The local oscillator, corrected by an estimate of what it is off. The system
 * clock is only looked at, to notice that it was set or that the machine slept:
 * until somebody knows more, this clock is not valid then. A {@linkcode Watch} keeps one.
 *
 * @example
 * ```ts
 * import { assert } from "@std/assert";
 * import { compareTimes, serve, Watch } from "@tsync/tsync";
 *
 * const server = await serve({ hosts: ["127.0.0.1"], port: 0 });
 * const watch = new Watch({ servers: [`127.0.0.1:${server.addresses[0]!.port}`] });
 * assert(watch.clock.now() === null); // It is not known yet.
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
  #estimate: Estimate | null = null;
  /** How the two timelines lay to each other when that was last looked at. */
  #reference: CrossTimestamp;
  #last = 0n;

  /**
   * Makes a clock that is not valid before {@linkcode set} is called.
   *
   * @param clock Its monotonic timeline is that of the estimates.
   */
  constructor(clock: Clock) {
    this.#clock = clock;
    this.#reference = crossTimestamp(clock);
  }

  /** Goes on with another estimate; with `null` it is not valid any more. */
  set(estimate: Estimate | null): void {
    this.#estimate = estimate;
  }

  /** To be called when the system clock was set by who keeps this one: all is well. */
  rebase(): void {
    this.#reference = crossTimestamp(this.#clock);
  }

  /**
   * Looks whether the system clock was set, or the machine slept, since the last call. To be called
   * about once a second: what is slower than a thousandth is not noticed.
   *
   * @returns Is all well? If not, the clock is not valid any more.
   */
  check(): boolean {
    const now = crossTimestamp(this.#clock);
    const well = !stepped(this.#reference, now);
    this.#reference = now;
    if (!well) this.#estimate = null;
    return well;
  }

  /**
   * The time, now, in nanoseconds since the Unix epoch. Without a poll it goes on, and its bounds
   * grow by what the frequency can still be.
   *
   * @param backward May `time` be earlier than it was before, if that turns out to have been late?
   * Default: no, it stands still meanwhile.
   * @returns `null` if it is not valid: it never was, or is no more.
   */
  now(backward = false): SyncedTime | null {
    if (this.#estimate === null) return null;
    const now = crossTimestamp(this.#clock, 1);
    if (stepped(this.#reference, now)) return null;
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
}

/**
 * Which of two moments came first? They may be those of two machines that keep to the same servers.
 *
 * @returns Whether `a` was before or after `b`; `null` if that cannot be told, since their bounds
 * overlap.
 */
export function compareTimes(a: SyncedTime, b: SyncedTime): "before" | "after" | null {
  if (a.latest < b.earliest) return "before";
  return b.latest < a.earliest ? "after" : null;
}
