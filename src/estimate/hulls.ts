/**
 * What exchanges over minutes and hours prove of offset and frequency
 * together. Each proves that the offset was at most so much when its request
 * left, and at least so much when its reply came:
 *
 * ```text
 *  offset     x          x                 upper bounds
 *       \ x      x  x         x     x
 *        \----------------------------     every line between them is possible
 *     o     o        o   o     o
 *       o       o          o               lower bounds
 *                                  time
 * ```
 *
 * As long as the frequency is constant the offset is one of the lines below
 * all upper bounds and above all lower ones. Only the convex hulls of the two
 * count (Duda, Harrus, Haddad, Bernard: Estimating global time in distributed
 * systems, ICDCS 1987).
 *
 * @module
 */

import type { Interval } from "./exchange.ts";

/** A bound on the offset at one moment. Both are nanoseconds. */
export interface Bound {
  readonly at: bigint;
  readonly offset: bigint;
}

/** What a frequency can be: fractions, the server's clock against the local one's. */
export interface FrequencyRange {
  readonly lower: number;
  readonly upper: number;
}

/** Seconds and nanoseconds from the origin, where doubles are exact enough. */
interface Place {
  readonly x: number;
  readonly y: number;
}

/** What one poll proves. */
interface Pair {
  readonly lower: Bound;
  readonly upper: Bound;
}

/** The lines that are possible, over a window of polls. */
export class Hulls {
  readonly #window: number;
  readonly #limit: number;
  #pairs: Pair[] = [];
  #origin: Bound = { at: 0n, offset: 0n };
  #uppers: Place[] = [];
  #lowers: Place[] = [];
  /** Nanoseconds a second: the slopes of the steepest lines that are possible. */
  #slopes: FrequencyRange;

  /**
   * @param window Polls of which the bounds are used, up to twice as many.
   * @param limit The greatest frequency that is possible at all, a fraction.
   */
  constructor(window: number, limit: number) {
    this.#window = window;
    this.#limit = limit * 1e9;
    this.#slopes = { lower: -this.#limit, upper: this.#limit };
  }

  /** Polls of which the bounds are used. */
  get polls(): number {
    return this.#pairs.length;
  }

  /** What the frequency can be. */
  get frequency(): FrequencyRange {
    return { lower: this.#slopes.lower / 1e9, upper: this.#slopes.upper / 1e9 };
  }

  /**
   * Adds what a poll proves. Where no line fits any more the frequency has
   * changed: the oldest polls are forgotten until one does.
   *
   * @param lower The offset was at least this, no later than `upper` of the next poll.
   * @param upper The offset was at most this.
   * @returns How many polls were forgotten for that.
   */
  add(lower: Bound, upper: Bound): number {
    const pair = { lower, upper };
    this.#pairs.push(pair);
    if (this.#pairs.length === 1 || this.#pairs.length > 2 * this.#window) {
      this.#rebuild(this.#pairs.slice(-this.#window));
    } else {
      this.#append(pair);
    }
    if (this.#fit()) return 0;
    const all = this.#pairs;
    // The fewest to forget: who fits without some fits without more.
    let few = 0;
    let enough = all.length - 1;
    while (enough - few > 1) {
      const middle = (few + enough) >> 1;
      this.#rebuild(all.slice(middle));
      if (this.#fit()) enough = middle;
      else few = middle;
    }
    this.#rebuild(all.slice(enough));
    this.#fit();
    return enough;
  }

  /** Forgets everything. */
  clear(): void {
    this.#pairs = [];
    this.#slopes = { lower: -this.#limit, upper: this.#limit };
  }

  /**
   * What the offset can be at a moment no earlier than the last poll.
   *
   * @throws {RangeError} if there was none.
   */
  at(moment: bigint): Interval {
    if (this.#pairs.length === 0) throw new RangeError("cannot bound an offset without a poll");
    const x = Number(moment - this.#origin.at) / 1e9;
    const { lower, upper } = this.#slopes;
    const least = highest(this.#lowers, lower) + lower * x;
    const most = lowest(this.#uppers, upper) + upper * x;
    return {
      lower: this.#origin.offset + BigInt(Math.floor(least)),
      upper: this.#origin.offset + BigInt(Math.ceil(most)),
    };
  }

  #rebuild(pairs: Pair[]): void {
    this.#pairs = pairs;
    this.#origin = pairs[0]!.upper;
    this.#uppers = [];
    this.#lowers = [];
    for (const pair of pairs) this.#append(pair);
  }

  #append({ lower, upper }: Pair): void {
    append(this.#uppers, this.#place(upper), 1);
    append(this.#lowers, this.#place(lower), -1);
  }

  #place({ at, offset }: Bound): Place {
    return { x: Number(at - this.#origin.at) / 1e9, y: Number(offset - this.#origin.offset) };
  }

  /** Finds the steepest lines. @returns Is there any? */
  #fit(): boolean {
    const upper = this.#steepest(this.#limit);
    const lower = this.#steepest(-this.#limit);
    if (upper === null || lower === null) return false;
    this.#slopes = { lower: Math.min(lower, upper), upper: Math.max(lower, upper) };
    return true;
  }

  /**
   * The possible slope that is nearest to an impossible one, by Newton's method: the room between
   * the hulls is a concave function of the slope, of straight pieces, so it never goes too far.
   */
  #steepest(limit: number): number | null {
    let slope = limit;
    for (let step = 0; step <= this.#uppers.length + this.#lowers.length; step++) {
      const upper = extreme(this.#uppers, slope, 1);
      const lower = extreme(this.#lowers, slope, -1);
      const room = (upper.y - slope * upper.x) - (lower.y - slope * lower.x);
      if (room >= -ROUNDING) return slope;
      const next = (upper.y - lower.y) / (upper.x - lower.x);
      // Towards the other limit, or not at all.
      if (!Number.isFinite(next) || (limit > 0 ? next >= slope : next <= slope)) return null;
      if (Math.abs(next) > this.#limit) return null;
      slope = next;
    }
    return slope;
  }
}

/** Nanoseconds that are nothing. */
const ROUNDING = 1e-3;

/** Adds a place to a hull, to the right of all others. @param side 1: the hull from below; -1: from above. */
function append(hull: Place[], place: Place, side: 1 | -1): void {
  while (hull.length > 1) {
    const [a, b] = hull.slice(-2) as [Place, Place];
    const turn = (b.x - a.x) * (place.y - a.y) - (b.y - a.y) * (place.x - a.x);
    if (turn * side > 0) break;
    hull.pop();
  }
  hull.push(place);
}

/** The place that a line of some slope touches first, coming from below (1) or above (-1). */
function extreme(hull: readonly Place[], slope: number, side: 1 | -1): Place {
  // Along a hull the distance falls and then rises.
  let low = 0;
  let high = hull.length - 1;
  const distance = (i: number) => side * (hull[i]!.y - slope * hull[i]!.x);
  while (low < high) {
    const middle = (low + high) >> 1;
    if (distance(middle) <= distance(middle + 1)) high = middle;
    else low = middle + 1;
  }
  return hull[low]!;
}

/** How high a line of some slope can lie at the origin. */
function lowest(uppers: readonly Place[], slope: number): number {
  const { x, y } = extreme(uppers, slope, 1);
  return y - slope * x;
}

/** How low it can. */
function highest(lowers: readonly Place[], slope: number): number {
  const { x, y } = extreme(lowers, slope, -1);
  return y - slope * x;
}
