/**
 * Which servers to believe (Marzullo's intersection, as in RFC 5905, section
 * 11.2.1, but for whole intervals): the truth lies in every good server's
 * interval, so good servers share a point, and bad ones give themselves away.
 *
 * @module
 */

import type { Interval } from "./exchange.ts";

/** The servers that agree, and where. */
export interface Selection {
  /** Where the truth is: what the truechimers' intervals have in common. */
  readonly interval: Interval;
  /** For each interval, in the order given: is it one of those that agree? */
  readonly truechimers: readonly boolean[];
  /** How many share a point: fewer than there are truechimers if several sets are equally large. */
  readonly agreeing: number;
}

/**
 * Finds the largest set of intervals that share a point.
 *
 * One server is a majority of one and is believed; two must agree; of more,
 * more than half must. If several sets are equally large (a chain in which the
 * middle one touches both ends), any of them may be right: the interval spans
 * what each has in common, and the members of all count as truechimers.
 *
 * @returns `null` if no such set is a majority.
 */
export function select(intervals: readonly Interval[]): Selection | null {
  let best: Selection | undefined;
  // The intersection of any set begins at one of its members' lower ends.
  for (const { lower: point } of intervals) {
    const truechimers = intervals.map(({ lower, upper }) => lower <= point && point <= upper);
    const members = intervals.filter((_, i) => truechimers[i]);
    const agreeing = members.length;
    if (best !== undefined && agreeing < best.agreeing) continue;
    const upper = members.map((each) => each.upper).reduce((a, b) => a < b ? a : b);
    const found = { interval: { lower: point, upper }, truechimers, agreeing };
    best = agreeing === best?.agreeing ? either(best, found) : found;
  }
  return best !== undefined && best.agreeing * 2 > intervals.length ? best : null;
}

/** Two sets of the same size, either of which may be right. */
function either(a: Selection, b: Selection): Selection {
  return {
    interval: {
      lower: a.interval.lower < b.interval.lower ? a.interval.lower : b.interval.lower,
      upper: a.interval.upper > b.interval.upper ? a.interval.upper : b.interval.upper,
    },
    truechimers: a.truechimers.map((is, i) => is || b.truechimers[i]!),
    agreeing: a.agreeing,
  };
}
