/**
 * From polls to the offset at any later moment. Two things are kept apart:
 * what is likely, by a bank of Kalman filters, and what is certain, an interval
 * carried on from poll to poll that no change of frequency within
 * {@linkcode WANDER} can leave.
 *
 * The last two polls' own bounds say what the frequency was between them, on
 * average, whatever it was before. It is presumed to have been within `WANDER`
 * of that average over all polls in use, which the hulls bound, and to stay so.
 *
 * @module
 */

import { type Bounds, tightest } from "./envelope.ts";
import type { Exchange } from "./exchange.ts";
import { FilterBank } from "./filter_bank.ts";
import { type FrequencyRange, Hulls } from "./hulls.ts";

/**
 * The greatest frequency of the local oscillator against the server's clock,
 * as a fraction: the most that kernels and NTP correct (RFC 5905, section 11.3).
 */
export const MAX_FREQUENCY = 500e-6;

/**
 * The most by which the frequency differs from its average between the last two polls, over all
 * polls in use and until the next one, as a fraction: NTP's PHI (RFC 5905, section 7.2). If a
 * server is slewed by more, its time is outside the bounds until the next poll.
 */
export const WANDER = 15e-6;

/** What is known after a poll. Offsets are the servers' time less the local monotonic timeline, in nanoseconds. */
export interface Estimate extends Bounds {
  /** The likely offset, which {@linkcode carry} keeps within the bounds. */
  readonly offset: bigint;
  /** The servers' clock against the local oscillator, as a fraction: how fast the offset is likely to grow. */
  readonly frequency: number;
  /** The most by which the frequency can be wrong, at the poll or later: a fraction. */
  readonly frequencyBound: number;
  /** What the frequency can be, at the poll or later. */
  readonly frequencyRange: FrequencyRange;
}

/**
 * How a poll compares with those before it. `first`: there was none. `agrees`: they agree.
 * `frequency`: the frequency has changed. `step`: the offset was stepped.
 */
export type News = "first" | "agrees" | "frequency" | "step";

/** Tracks the offset from poll to poll. */
export class OffsetTracker {
  readonly #hulls: Hulls;
  readonly #bank = new FilterBank();
  #estimate: Estimate | null = null;
  /** What the last poll alone proved. */
  #last: Bounds | null = null;

  /** @param window Polls, up to twice as many, over which the frequency is taken to be constant. */
  constructor(window = 32) {
    this.#hulls = new Hulls(window, MAX_FREQUENCY);
  }

  /** What is known; `null` before the first poll. */
  get estimate(): Estimate | null {
    return this.#estimate;
  }

  /** The last poll's innovation: its offset less the one that was predicted, in standard deviations. */
  get innovation(): number {
    return this.#bank.innovation;
  }

  /** How far the likely offset (nanoseconds) and frequency (a fraction) are off, as standard deviations. */
  deviationAt(moment: bigint): { readonly offset: number; readonly frequency: number } {
    return this.#bank.deviationAt(moment);
  }

  /**
   * Takes in a poll.
   *
   * @param bounds What it proves about the offset, at a later moment than the last poll.
   * @param exchanges The exchanges that prove it; empty if they are several servers'.
   * @returns How it compares with what was known, all of which is forgotten after a step.
   */
  poll(bounds: Bounds, exchanges: readonly Exchange[] = []): News {
    const before = this.#estimate;
    let { lower, upper } = bounds;
    let news: News = before === null ? "first" : "agrees";
    if (before !== null) {
      const carried = carry(before, bounds.at);
      if (carried.lower > lower) lower = carried.lower;
      if (carried.upper < upper) upper = carried.upper;
      if (lower > upper) {
        ({ lower, upper } = bounds);
        this.#hulls.clear();
        this.#bank.clear();
        this.#last = null;
        news = "step";
      }
    }
    const { at } = bounds;
    const voted = { lower: { at, offset: bounds.lower }, upper: { at, offset: bounds.upper } };
    const forgotten = this.#hulls.add(voted.lower, voted.upper);
    if (forgotten > 0 && news === "agrees") news = "frequency";
    this.#bank.add(exchanges.length === 0 ? voted : tightest(exchanges, this.#bank.frequency));
    const range = this.#hulls.frequency;
    const certain = this.#recentFrequency(range, bounds);
    const middle = clamp((range.lower + range.upper) / 2, certain);
    const doubt = Math.max(certain.upper - middle, middle - certain.lower);
    const most = Math.min(doubt + WANDER, MAX_FREQUENCY + Math.abs(middle));
    const frequency = clamp(this.#bank.frequency, certain);
    this.#estimate = {
      at,
      lower,
      upper,
      offset: this.#bank.offsetAt(at),
      frequency,
      frequencyBound: most + Math.abs(frequency - middle),
      frequencyRange: { lower: middle - most, upper: middle + most },
    };
    this.#last = bounds;
    return news;
  }

  /** What the frequency can have been since the last poll, on average. */
  #recentFrequency({ lower, upper }: FrequencyRange, bounds: Bounds): FrequencyRange {
    const range = { lower: lower - WANDER, upper: upper + WANDER };
    if (this.#last === null) return range;
    const elapsed = Number(bounds.at - this.#last.at);
    const recent = {
      lower: Number(bounds.lower - this.#last.upper) / elapsed,
      upper: Number(bounds.upper - this.#last.lower) / elapsed,
    };
    // If they have nothing in common it has changed by more than presumed: the past is no guide.
    if (recent.lower > range.upper || recent.upper < range.lower) return recent;
    return {
      lower: Math.max(range.lower, recent.lower),
      upper: Math.min(range.upper, recent.upper),
    };
  }

  /** Forgets everything: the local timeline, or the server, is not what it was. */
  clear(): void {
    this.#hulls.clear();
    this.#bank.clear();
    this.#estimate = null;
    this.#last = null;
  }
}

function clamp(value: number, { lower, upper }: FrequencyRange): number {
  return Math.min(Math.max(value, lower), upper);
}

/** What an estimate says about a later moment: the likely offset is within the bounds. */
export function carry(estimate: Estimate, at: bigint): Bounds & { readonly offset: bigint } {
  const age = Number(at - estimate.at);
  const { frequency, frequencyRange } = estimate;
  const lower = estimate.lower + BigInt(Math.floor(frequencyRange.lower * age));
  const upper = estimate.upper + BigInt(Math.ceil(frequencyRange.upper * age));
  const offset = estimate.offset + BigInt(Math.round(frequency * age));
  return { at, offset: offset < lower ? lower : offset > upper ? upper : offset, lower, upper };
}
