/**
 * Whether and how the system clock is corrected: once by a fix, or again and
 * again by a clock that is kept.
 *
 * @module
 */

import type { ClockSetter } from "../clock/clock_setter.ts";
import type { ClockOffset } from "../clock/synced_clock.ts";
import type { Leap } from "../ntp/packet.ts";
import { nanoseconds } from "../ntp/timestamp.ts";
import type { Fix } from "./fix.ts";

/** What was done with the system clock. */
export interface Correction {
  /**
   * `none`: it is right. `refused`: a step this large is taken for an error of the servers, unless it
   * is the first correction. `doubted`: too few of the servers agree.
   */
  readonly action: "none" | "slew" | "step" | "refused" | "doubted";
  /** Seconds by which the system clock was behind: what was added to it, if anything was. */
  readonly offset: number;
}

/** Seconds beyond which only the first correction goes (PANICT in RFC 5905, appendix A). */
export const PANIC_THRESHOLD_SECONDS = 1000;

/** Seconds beyond which the clock is stepped (RFC 5905, section 11.3). */
export const STEP_THRESHOLD_SECONDS = 0.128;

/** How fast a clock that is kept is slewed, at most, as a fraction. */
export const MAX_SLEW = 5000e-6;

/** The least that the system can slew at once: less is rounded to nothing. */
const LEAST_SLEW_SECONDS = 5e-7;

/** The error from which on the kernel takes a clock to be unsynchronised, in seconds. */
const UNSYNCHRONISED_SECONDS = 16;

/** What steers the system clock: a kept one, from which it should not differ. */
export interface Target {
  /** How far the system clock is from the kept one. */
  readonly clock: ClockOffset;
  /** The servers' clock against the local oscillator, as a fraction. */
  readonly frequency: number;
  /** How far the kept clock's offset (nanoseconds) and frequency (a fraction) are likely to be off. */
  readonly deviation: { readonly offset: number; readonly frequency: number };
  /** Seconds by which the kept clock can be wrong beyond its bound, if the servers are. */
  readonly rootDistance: number;
  /** The leap second at the end of the day. */
  readonly leap: Leap;
}

/**
 * The leap second at the end of this day. There are some at the end of June and December only, but
 * servers announce them earlier.
 *
 * @param leap What servers announce.
 * @param now Nanoseconds since the Unix epoch.
 */
export function leapToday(leap: Leap, now: bigint): Leap {
  const tomorrow = new Date(Number(now / 1_000_000n) + 86_400_000);
  return tomorrow.getUTCDate() === 1 && tomorrow.getUTCMonth() % 6 === 0 ? leap : "none";
}

/**
 * Decides what to do about an offset. The likely offset counts, whether or not it is within its error
 * bound; but a step is seen by everybody, and so must be beyond doubt.
 */
export function decide(
  { offset, errorBound }: { readonly offset: number; readonly errorBound: number },
  threshold: number,
  isFirst: boolean,
): Correction["action"] {
  const distance = Math.abs(offset);
  if (distance < LEAST_SLEW_SECONDS) return "none";
  if (distance <= threshold || distance <= errorBound) return "slew";
  return distance > PANIC_THRESHOLD_SECONDS && !isFirst ? "refused" : "step";
}

/**
 * Corrects the system clock, by one fix or by a clock that is kept. Up to the threshold it is
 * slewed, and beyond it stepped, but by more than 1000 s only if it has never been right before
 * (RFC 5905, appendix A).
 */
export class Corrector {
  readonly #setter: ClockSetter;
  readonly #threshold: number;
  /** Is it not known that the clock has ever been right? */
  #isFirst = true;
  /** Has it been steered, so that the kernel must be told when nothing is known any more? */
  #isSteering = false;
  /** Seconds of what it was told last that the kernel adds in its second, even if told otherwise. */
  #slewing = 0;

  /**
   * The clock is left alone until the first fix.
   *
   * @param setter Sets the clock that the fixes are about.
   * @param threshold Seconds beyond which the clock is stepped, 0 to 1000. Default 0.128 (RFC 5905,
   * section 11.3).
   * @throws {RangeError} if it is out of range.
   */
  constructor(setter: ClockSetter, threshold: number = STEP_THRESHOLD_SECONDS) {
    if (!(threshold >= 0 && threshold <= PANIC_THRESHOLD_SECONDS)) {
      throw new RangeError(
        `cannot set the clock: threshold must be from 0 to ${PANIC_THRESHOLD_SECONDS} seconds: ` +
          `current value is ${threshold}`,
      );
    }
    this.#setter = setter;
    this.#threshold = threshold;
  }

  /** Seconds that should be between two calls of {@linkcode Corrector.steer}, at least. */
  get steeringSeconds(): number {
    return this.#setter.steeringSeconds;
  }

  /**
   * Corrects the system clock by a fix that was just made, if most of the servers that were asked
   * agree. A slew goes on by itself.
   *
   * @throws {Error} with a sentence, if the clock cannot be set; it is left unchanged then.
   */
  correct({ synchronised, isMajority, offset, errorBound }: Fix): Correction {
    if (!synchronised) return { action: "none", offset: 0 };
    if (!isMajority) return { action: "doubted", offset: offset! };
    const correction = this.#correct({ offset: offset!, errorBound: errorBound! });
    if (correction.action !== "slew") return correction;
    // What keeps the clock knows better than one fix does where it is within the bound.
    if (Math.abs(offset!) <= errorBound! && this.#setter.isKeptByOther) {
      return { action: "none", offset: offset! };
    }
    this.#setter.slew(nanoseconds(offset!));
    return correction;
  }

  /**
   * Steps the system clock, if need be, to a kept one that has just been compared with the servers'.
   * Whatever is done, it is to be steered then.
   *
   * @throws {Error} with a sentence, if the clock cannot be set; it is left unchanged then.
   */
  follow(target: Target): Correction {
    return this.#correct(target.clock);
  }

  /**
   * Steers the system clock towards a kept one, and has the kernel know how wrong it is. Between two
   * calls the kernel goes on by itself; if there is no other, it ends within seconds what it does
   * beside keeping the frequency.
   *
   * @param target `null` if no clock is kept: the system's is unsynchronised then.
   * @returns Has another program steered it since the last call?
   * @throws {Error} with a sentence, if the clock cannot be steered.
   */
  steer(target: Target | null): boolean {
    const known = target !== null && Math.abs(target.clock.offset) <= PANIC_THRESHOLD_SECONDS;
    if (!known && !this.#isSteering) return false;
    this.#isSteering = known;
    if (!known) return this.#setter.steer({ phase: 0, frequency: null, error: null, leap: "none" });
    const { clock: { offset, errorBound }, deviation, frequency, rootDistance, leap } = target;
    const distance = Math.abs(offset);
    const most = MAX_SLEW / this.#setter.gain;
    const phase = Math.min(Math.max(offset, -most), most);
    const farthest = Math.max(distance, Math.abs(offset - this.#slewing));
    this.#slewing = phase * this.#setter.gain;
    const maximum = farthest + errorBound + rootDistance;
    const estimated = Math.min(distance + deviation.offset / 1e9, maximum);
    // What the kernel has learnt before is better than what is only being learnt.
    const isBetter = Math.abs(frequency - this.#setter.frequency) > deviation.frequency;
    return this.#setter.steer({
      phase: phase * 1e9,
      frequency: isBetter ? frequency : null,
      error: maximum < UNSYNCHRONISED_SECONDS ? { maximum, estimated } : null,
      leap,
    });
  }

  /** Steps the clock, if need be. */
  #correct(known: { readonly offset: number; readonly errorBound: number }): Correction {
    const { offset, errorBound } = known;
    const action = decide(known, this.#threshold, this.#isFirst);
    if (action === "step") {
      this.#setter.step(nanoseconds(offset));
      this.#slewing = 0;
    }
    const isNear = Math.abs(offset) + errorBound <= PANIC_THRESHOLD_SECONDS;
    if (action === "step" || isNear) this.#isFirst = false;
    return { action, offset };
  }
}
