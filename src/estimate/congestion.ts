/**
 * Whether what delays messages lasts from one to the next. If it does, many
 * messages within a short time say little more than one: a longer time helps,
 * and more messages do not.
 *
 * @module
 */

import { delay, type Exchange, interval } from "./exchange.ts";

/** Of fewer exchanges nobody can tell. */
const LEAST_EXCHANGES = 16;

/**
 * The least scatter that matters, as a standard deviation in nanoseconds. Below it, the growth of
 * the offset itself during a burst looks as if it lasted.
 */
const LEAST_SCATTER_NS = 100e3;

/**
 * The ratio below which delays are taken to last. It is 2 for independent ones, 0.35 either way
 * among 32 of them; chosen on simulated paths (docs/method.md).
 */
const LASTING_RATIO = 1.2;

/**
 * Is one of the two directions congested, and will it be so for longer than until the next message?
 * Judged by von Neumann's ratio: the mean square of the differences between neighbours, of the
 * variance (Distribution of the ratio of the mean square successive difference to the variance,
 * Annals of Mathematical Statistics 12(4), 1941).
 *
 * @param exchanges In the order of their T1.
 */
export function isCongestionLasting(exchanges: readonly Exchange[]): boolean {
  if (exchanges.length < LEAST_EXCHANGES) return false;
  const proved = exchanges.map(interval);
  const first = proved[0]!;
  return lasts(proved.map(({ upper }) => Number(upper - first.upper))) ||
    lasts(proved.map(({ lower }) => Number(lower - first.lower)));
}

/**
 * How long messages wait on the way, there and back, on average: by how much exchanges take longer
 * than the fastest of them.
 *
 * @param exchanges At least one.
 * @returns Seconds.
 */
export function meanWaiting(exchanges: readonly Exchange[]): number {
  const delays = exchanges.map((each) => Number(delay(each)));
  const least = Math.min(...delays);
  return delays.reduce((sum, each) => sum + each - least, 0) / delays.length / 1e9;
}

/** @param bounds Nanoseconds. */
function lasts(bounds: readonly number[]): boolean {
  const { length } = bounds;
  const mean = bounds.reduce((a, b) => a + b) / length;
  let [squares, differences, before] = [0, 0, bounds[0]!];
  for (const bound of bounds) {
    squares += (bound - mean) ** 2;
    differences += (bound - before) ** 2;
    before = bound;
  }
  return squares > length * LEAST_SCATTER_NS ** 2 && differences < LASTING_RATIO * squares;
}
