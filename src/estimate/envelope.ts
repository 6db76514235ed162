/**
 * What many exchanges prove together. NTP keeps the exchange with the least
 * delay; the envelope takes each bound from whichever exchange was luckiest
 * in that direction, and so is usually much narrower.
 *
 * @module
 */

import { delay, type Exchange, type Interval, interval, offset } from "./exchange.ts";
import type { Bound, FrequencyRange, Pair } from "./hulls.ts";

/**
 * The most by which two clocks can drift apart, as a fraction: two quartz
 * oscillators of 50 ppm each. NTP's PHI (15 ppm, RFC 5905, section 7.2) presumes
 * that both clocks are disciplined; the timeline of T1 and T4 is not.
 */
export const MAX_DRIFT = 100e-6;

/** An interval of offsets, and the moment for which it holds. */
export interface Bounds extends Interval {
  /** The moment, in nanoseconds on the timeline of T1 and T4. */
  readonly at: bigint;
}

/**
 * Intersects the intervals of a burst. Each of the two extremes holds for its own moment: the
 * result is for the later of the two, so that only the earlier one is carried, and no further than
 * that.
 *
 * @param exchanges At least one.
 * @param precision The sum of both clocks' precisions, in seconds.
 * @returns `null` if they have nothing in common: a clock was stepped meanwhile.
 * @throws {RangeError} if there is no exchange.
 */
export function intersect(exchanges: readonly Exchange[], precision: number): Bounds | null {
  if (exchanges.length === 0) throw new RangeError("cannot intersect no exchanges");
  const { lower, upper } = extremes(exchanges, { lower: -MAX_DRIFT, upper: MAX_DRIFT });
  const at = lower.at > upper.at ? lower.at : upper.at;
  const low = lower.offset - slack(precision, at - lower.at);
  const high = upper.offset + slack(precision, at - upper.at);
  return low <= high ? { lower: low, upper: high, at } : null;
}

/**
 * The tightest bounds of a burst, each at its own moment, with nothing added to them.
 *
 * @param exchanges At least one.
 * @param frequency How fast the offset grows meanwhile, as far as is known: a fraction.
 */
export function tightest(exchanges: readonly Exchange[], frequency: number): Pair {
  return extremes(exchanges, { lower: frequency, upper: frequency });
}

/** The bounds that are the tightest once all have grown at these rates until one moment. */
function extremes(exchanges: readonly Exchange[], growth: FrequencyRange): Pair {
  const pairs = exchanges.map((exchange): Pair => {
    const { lower, upper } = interval(exchange);
    return { lower: { at: exchange.t4, offset: lower }, upper: { at: exchange.t1, offset: upper } };
  });
  const beyond = (a: Bound, b: Bound, rate: number) =>
    Number(b.offset - a.offset) - rate * Number(b.at - a.at);
  return {
    lower: pairs.map(({ lower }) => lower)
      .reduce((a, b) => beyond(a, b, growth.lower) > 0 ? b : a),
    upper: pairs.map(({ upper }) => upper)
      .reduce((a, b) => beyond(a, b, growth.upper) < 0 ? b : a),
  };
}

/** The same bounds for a later moment, widened by how far the clocks can drift apart until then. */
export function extrapolate(bounds: Bounds, at: bigint): Bounds {
  const more = slack(0, at - bounds.at);
  return { lower: bounds.lower - more, upper: bounds.upper + more, at };
}

/** Nanoseconds by which a bound grows in `age` nanoseconds, rounded up. */
function slack(precision: number, age: bigint): bigint {
  return BigInt(Math.ceil(precision * 1e9 + MAX_DRIFT * Number(age)));
}

/** The least delay among exchanges, in nanoseconds. */
export function leastDelay(exchanges: readonly Exchange[]): bigint {
  return exchanges.map(delay).reduce((least, next) => next < least ? next : least);
}

/**
 * How much single exchanges scatter: the root mean square of their offsets'
 * distance from the offset of the exchange with the least delay (RFC 5905,
 * section 10).
 *
 * @returns Seconds; 0 for a single exchange.
 */
export function jitter(exchanges: readonly Exchange[]): number {
  if (exchanges.length < 2) return 0;
  const best = exchanges.reduce((a, b) => delay(b) < delay(a) ? b : a);
  const squares = exchanges.map((each) => (Number(offset(each) - offset(best)) / 1e9) ** 2);
  return Math.sqrt(squares.reduce((a, b) => a + b) / (squares.length - 1));
}
