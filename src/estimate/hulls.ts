/**
 * What exchanges over minutes and hours prove about offset and frequency
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
 * As long as the frequency is constant, the offset follows one of the lines below
 * all upper bounds and above all lower ones. Only the convex hulls of the two
 * matter (Duda, Harrus, Haddad, Bernard: Estimating global time in distributed
 * systems, ICDCS 1987).
 *
 * @module
 */

/** A bound on the offset at one moment. Both are nanoseconds. */
export interface Bound {
  readonly at: bigint;
  readonly offset: bigint;
}

/** What the frequency of the server's clock against the local one can be. */
export interface FrequencyRange {
  /** The least, as a fraction. */
  readonly lower: number;
  /** The greatest, as a fraction. */
  readonly upper: number;
}

/** A bound, as seconds and nanoseconds from the origin: there doubles are exact enough. */
interface Point {
  readonly x: number;
  readonly y: number;
}

/** What one poll proves: the least and the most that the offset was, each at its own moment. */
export interface Pair {
  readonly lower: Bound;
  readonly upper: Bound;
}

/** The lines that are possible, over a window of polls. */
export class Hulls {
  readonly #window: number;
  readonly #limit: number;
  #pairs: Pair[] = [];
  #origin: Bound = { at: 0n, offset: 0n };
  #uppers: Point[] = [];
  #lowers: Point[] = [];
  /** Nanoseconds a second: the slopes of the steepest lines that are possible. */
  #slopes: FrequencyRange;

  /**
   * @param window How many of the last polls are used, at least; up to twice as many are.
   * @param limit The greatest frequency that is possible at all, as a fraction.
   */
  constructor(window: number, limit: number) {
    this.#window = window;
    this.#limit = limit * 1e9;
    this.#slopes = { lower: -this.#limit, upper: this.#limit };
  }

  /** How many polls are used. */
  get polls(): number {
    return this.#pairs.length;
  }

  /** What the frequency can be. */
  get frequency(): FrequencyRange {
    return { lower: this.#slopes.lower / 1e9, upper: this.#slopes.upper / 1e9 };
  }

  /**
   * Adds what a poll proves. If no line fits any more, the frequency has
   * changed: the oldest polls are forgotten until one does.
   *
   * @param lower The least the offset was, no later than `upper` of the next poll.
   * @param upper The most it was.
   * @returns How many polls were forgotten to make a line fit.
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
    // The fewest to forget: a line that fits without some polls also fits without more.
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

  #rebuild(pairs: Pair[]): void {
    this.#pairs = pairs;
    this.#origin = pairs[0]!.upper;
    this.#uppers = [];
    this.#lowers = [];
    for (const pair of pairs) this.#append(pair);
  }

  #append({ lower, upper }: Pair): void {
    append(this.#uppers, this.#point(upper), 1);
    append(this.#lowers, this.#point(lower), -1);
  }

  #point({ at, offset }: Bound): Point {
    return { x: Number(at - this.#origin.at) / 1e9, y: Number(offset - this.#origin.offset) };
  }

  /** Finds the steepest lines. @returns Does any line fit? */
  #fit(): boolean {
    const upper = this.#steepest(this.#limit);
    const lower = this.#steepest(-this.#limit);
    if (upper === null || lower === null) return false;
    this.#slopes = { lower: Math.min(lower, upper), upper: Math.max(lower, upper) };
    return true;
  }

  /**
   * The possible slope nearest to a limit, by Newton's method: the room between the hulls is a
   * concave, piecewise linear function of the slope, so no step goes too far.
   */
  #steepest(limit: number): number | null {
    let slope = limit;
    for (let step = 0; step <= this.#uppers.length + this.#lowers.length; step++) {
      const upper = extreme(this.#uppers, slope, 1);
      const lower = extreme(this.#lowers, slope, -1);
      const room = (upper.y - slope * upper.x) - (lower.y - slope * lower.x);
      if (room >= -ROUNDING_NS) return slope;
      const next = (upper.y - lower.y) / (upper.x - lower.x);
      // Towards the other limit, or not at all.
      if (!Number.isFinite(next) || (limit > 0 ? next >= slope : next <= slope)) return null;
      if (Math.abs(next) > this.#limit) return null;
      slope = next;
    }
    return slope;
  }
}

/** Nanoseconds that may be lost to rounding. */
const ROUNDING_NS = 1e-3;

/** Adds a point to a hull, to the right of all others. @param side 1: the hull from below; -1: from above. */
function append(hull: Point[], point: Point, side: 1 | -1): void {
  while (hull.length > 1) {
    const [a, b] = hull.slice(-2) as [Point, Point];
    const turn = (b.x - a.x) * (point.y - a.y) - (b.y - a.y) * (point.x - a.x);
    if (turn * side > 0) break;
    hull.pop();
  }
  hull.push(point);
}

/** The point that a line of this slope touches first, coming from below (1) or above (-1). */
function extreme(hull: readonly Point[], slope: number, side: 1 | -1): Point {
  // Along a hull the distance first falls, then rises.
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
