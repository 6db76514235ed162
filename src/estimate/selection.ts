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
  /** The intersection of the truechimers' intervals. */
  readonly interval: Interval;
  /** For each interval given, in order: does it take part? */
  readonly truechimers: readonly boolean[];
}

/**
 * Finds the largest set of intervals that share a point.
 *
 * One server is a majority of one and is believed; two must agree; of more,
 * more than half must. Where two different sets are equally large (a chain in
 * which the middle one touches both ends) neither is believed: a falseticker
 * might be in either.
 *
 * @returns `null` if no such set is a majority.
 */
export function select(intervals: readonly Interval[]): Selection | null {
  let best: Selection | null = null;
  let most = 0;
  let tied = false;
  // The intersection of any set begins at one of its members' lower ends.
  for (const { lower: point } of intervals) {
    const truechimers = intervals.map(({ lower, upper }) => lower <= point && point <= upper);
    const members = intervals.filter((_, i) => truechimers[i]);
    if (members.length < most) continue;
    const same = best !== null && truechimers.every((is, i) => is === best!.truechimers[i]);
    tied = members.length === most && (tied || !same);
    most = members.length;
    const upper = members.map((each) => each.upper).reduce((a, b) => a < b ? a : b);
    best = { interval: { lower: point, upper }, truechimers };
  }
  return most * 2 > intervals.length && !tied ? best : null;
}
