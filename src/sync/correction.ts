/**
 * Whether and how a fix corrects the system clock.
 *
 * @module
 */

import type { ClockSetter } from "../clock/clock_setter.ts";
import { nanoseconds } from "../ntp/timestamp.ts";
import type { Fix } from "./fix.ts";

/** What was done with the system clock. */
export interface Correction {
  /**
   * `none`: it is as right as can be told. `refused`: a step this large is taken for an error of
   * the servers, unless it is the first correction. `doubted`: too few of the servers agree.
   */
  readonly action: "none" | "slew" | "step" | "refused" | "doubted";
  /** Seconds by which the system clock was behind: what was added to it, if anything was. */
  readonly offset: number;
}

/** Seconds beyond which only the first correction goes (PANICT in RFC 5905, appendix A). */
export const PANIC_THRESHOLD_SECONDS = 1000;

/** Seconds beyond which the clock is stepped (RFC 5905, section 11.3). */
export const STEP_THRESHOLD_SECONDS = 0.128;

/** The least that the system can slew, in nanoseconds: less is rounded to nothing. */
const LEAST_SLEW_NS = 500n;

/** Decides what to do with the system clock. */
export function decide(
  fix: Fix,
  threshold: number,
  isFirst: boolean,
): Correction["action"] {
  const { synchronised, offset, errorBound } = fix;
  if (!synchronised || Math.abs(offset!) <= errorBound!) return "none";
  if (Math.abs(offset!) > PANIC_THRESHOLD_SECONDS && !isFirst) return "refused";
  if (Math.abs(offset!) * 1e9 < Number(LEAST_SLEW_NS)) return "none";
  return Math.abs(offset!) > threshold ? "step" : "slew";
}

/**
 * Corrects the system clock by one fix after another. An offset within its error bound is left
 * alone; up to the threshold the clock is slewed, and beyond it stepped, but by more than 1000 s
 * only if it has never been right before (RFC 5905, appendix A).
 */
export class Corrector {
  readonly #setter: ClockSetter;
  readonly #threshold: number;
  /** Is it not known that the clock has ever been right? */
  #isFirst = true;
  #isSlewing = false;

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

  /**
   * Corrects the system clock by a fix that was just made, if most of the servers that were asked
   * agree.
   *
   * @throws {Error} with a sentence, if the clock cannot be set; it is left unchanged then.
   */
  correct(fix: Fix): Correction {
    const offset = fix.offset ?? 0;
    if (fix.synchronised && !fix.isMajority) return { action: "doubted", offset };
    const action = decide(fix, this.#threshold, this.#isFirst);
    if (action === "step") this.#setter.step(nanoseconds(offset));
    // A slew that is under way would go on for minutes.
    const stops = this.#isSlewing && action !== "slew" && fix.synchronised;
    if (action === "slew") this.#setter.slew(nanoseconds(offset));
    else if (stops) this.#setter.slew(0n);
    if (action === "slew" || stops) this.#isSlewing = action === "slew";
    const isNear = fix.synchronised &&
      Math.abs(offset) + fix.errorBound! <= PANIC_THRESHOLD_SECONDS;
    if (action === "step" || isNear) this.#isFirst = false;
    return { action, offset };
  }
}
