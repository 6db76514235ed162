/**
 * What many exchanges prove together. NTP keeps the exchange with the least
 * delay; the envelope takes each bound from whichever exchange was luckiest
 * in that direction, and so is usually much narrower.
 *
 * @module
 */

import { delay, type Exchange, type Interval, interval, offset } from "./exchange.ts";
import type { Pair } from "./hulls.ts";

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
 * Intersects the intervals of a burst.
 *
 * @param exchanges At least one, with T4 no later than `at`.
 * @param at The moment to state the offset for, on the timeline of T1 and T4.
 * @param precision The sum of both clocks' precisions, in seconds.
 * @returns `null` if they have nothing in common: a clock was stepped meanwhile.
 * @throws {RangeError} if there is no exchange.
 */
export function intersect(
  exchanges: readonly Exchange[],
  at: bigint,
  precision: number,
): Bounds | null {
  if (exchanges.length === 0) throw new RangeError("cannot intersect no exchanges");
  let lower: bigint | undefined;
  let upper: bigint | undefined;
  for (const exchange of exchanges) {
    const proved = interval(exchange);
    const low = proved.lower - slack(precision, at - exchange.t4);
    const high = proved.upper + slack(precision, at - exchange.t1);
    if (lower === undefined || low > lower) lower = low;
    if (upper === undefined || high < upper) upper = high;
  }
  return lower! <= upper! ? { lower: lower!, upper: upper!, at } : null;
}

/**
 * The tightest bounds of a burst, each at its own moment, with nothing added to them.
 *
 * @param exchanges At least one.
 * @param frequency How fast the offset grows meanwhile, as far as is known: a fraction.
 */
export function tightest(exchanges: readonly Exchange[], frequency: number): Pair {
  const out = exchanges.reduce((a, b) =>
    Number((b.t2 - b.t1) - (a.t2 - a.t1)) < frequency * Number(b.t1 - a.t1) ? b : a
  );
  const back = exchanges.reduce((a, b) =>
    Number((b.t3 - b.t4) - (a.t3 - a.t4)) > frequency * Number(b.t4 - a.t4) ? b : a
  );
  return {
    lower: { at: back.t4, offset: back.t3 - back.t4 },
    upper: { at: out.t1, offset: out.t2 - out.t1 },
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
