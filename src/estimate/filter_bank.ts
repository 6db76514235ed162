/**
 * The likely offset: a bank of Kalman filters, one for each of several rates at
 * which the frequency may wander, as an interacting multiple model (Blom,
 * Bar-Shalom: The interacting multiple model algorithm for systems with
 * Markovian switching coefficients, IEEE Transactions on Automatic Control
 * 33(8), 1988).
 *
 * @module
 */

import type { Bound, Pair } from "./hulls.ts";
import { mix, predict, type State, update } from "./kalman.ts";

/** How fast the frequency may wander: its standard deviation after a second, in nanoseconds a second. */
const WANDERS = [0.1, 1, 10, 100, 1000];

/** The probability that by the next poll the rate is one of its neighbours: each of them. */
const SWITCH = 0.005;

/** The least weight of a filter: it must be able to come back. */
const LEAST_WEIGHT = 1e-12;

/** The standard deviation of a frequency of which nothing is known, in nanoseconds a second. */
const ANY_FREQUENCY = 100e3;

/** The least standard deviation of a poll. */
const FLOOR_NS = 20;

/** How many of the last polls say how much jitter there is. */
const NOISE_WINDOW = 64;

/** The distance of a poll's bounds, in nanoseconds, and by how many seconds the lower is the later. */
interface Width {
  readonly distance: number;
  readonly lag: number;
}

/** Estimates offset and frequency from polls. */
export class FilterBank {
  /** What seconds and nanoseconds count from, so that doubles are exact enough. */
  #origin: Bound = { at: 0n, offset: 0n };
  #widths: Width[] = [];
  /** When the last poll was. */
  #seconds = 0;
  #states: readonly State[] = [];
  #weights: readonly number[] = [];
  #estimate: State = unknown(0, 0);
  #innovation = 0;

  /** The likely frequency, as a fraction. */
  get frequency(): number {
    return this.#estimate.frequency / 1e9;
  }

  /**
   * The last poll's innovation, its offset less the one that was predicted, in standard deviations;
   * 0 if there was nothing to predict it from.
   */
  get innovation(): number {
    return this.#innovation;
  }

  /** The likely offset at a moment, in nanoseconds. */
  offsetAt(moment: bigint): bigint {
    const { offset, frequency } = this.#estimate;
    const elapsed = Number(moment - this.#origin.at) / 1e9 - this.#seconds;
    return this.#origin.offset + BigInt(Math.round(offset + frequency * elapsed));
  }

  /** How far the likely offset (nanoseconds) and frequency (a fraction) are off, as standard deviations. */
  deviationAt(moment: bigint): { readonly offset: number; readonly frequency: number } {
    const elapsed = Number(moment - this.#origin.at) / 1e9 - this.#seconds;
    const [offset, , frequency] = predict(this.#estimate, elapsed, 0).covariance;
    return { offset: Math.sqrt(offset), frequency: Math.sqrt(frequency) / 1e9 };
  }

  /** Adds what a poll proves, the middle of which is its offset. */
  add({ lower, upper }: Pair): void {
    const isFirst = this.#widths.length === 0;
    if (isFirst) this.#origin = upper;
    const [from, to] = [upper.at, lower.at].map((at) => Number(at - this.#origin.at) / 1e9);
    const most = Number(upper.offset - this.#origin.offset);
    const least = Number(lower.offset - this.#origin.offset);
    const lag = to! - from!;
    this.#widths = [...this.#widths.slice(1 - NOISE_WINDOW), { distance: most - least, lag }];
    const { frequency, covariance } = this.#estimate;
    // The offset itself grows from one bound to the other, as far as the frequency is known.
    const variance = noise(this.#widths.map(({ distance, lag }) => distance + frequency * lag)) +
      covariance[2] * lag ** 2;
    const seconds = (from! + to!) / 2;
    const elapsed = seconds - this.#seconds;
    this.#seconds = seconds;
    if (isFirst) {
      this.#states = WANDERS.map(() => unknown((most + least) / 2, variance));
      this.#weights = WANDERS.map(() => 1 / WANDERS.length);
    } else this.#step(elapsed, (most + least) / 2, variance);
    this.#estimate = mix(this.#states, this.#weights);
  }

  /** Predicts the filters' states and corrects them. */
  #step(elapsed: number, offset: number, variance: number): void {
    const mixings = WANDERS.map((_, to) =>
      this.#weights.map((weight, from) => weight * odds(from, to))
    );
    const priors = mixings.map((mixing) => mixing.reduce((a, b) => a + b));
    const predicted = mixings.map((mixing, i) =>
      predict(mix(this.#states, mixing), elapsed, WANDERS[i]!)
    );
    const expected = mix(predicted, priors);
    this.#innovation = (offset - expected.offset) / Math.sqrt(expected.covariance[0] + variance);
    const updated = predicted.map((state) => update(state, offset, variance));
    this.#states = updated.map(({ state }) => state);
    // Compared with the likeliest: all of them can be too unlikely for a double.
    const most = Math.max(...updated.map(({ logLikelihood }) => logLikelihood));
    const posteriors = updated.map(({ logLikelihood }, i) =>
      priors[i]! * Math.exp(logLikelihood - most)
    );
    const sum = posteriors.reduce((a, b) => a + b);
    this.#weights = posteriors.map((weight) => Math.max(weight / sum, LEAST_WEIGHT));
  }

  /** Forgets everything. */
  clear(): void {
    this.#widths = [];
    this.#seconds = 0;
    this.#estimate = unknown(0, 0);
    this.#innovation = 0;
  }
}

/**
 * How far the middle of the last poll can be off. The width of a poll is a round trip without jitter
 * plus the jitter left in each direction. If both are exponential and alike, the sum of the two has
 * a median of 1.678 means, and the least of n such sums is 1.25 / √n means on average.
 *
 * @param widths Of the last polls, in nanoseconds.
 * @returns The variance, in nanoseconds squared.
 */
export function noise(widths: readonly number[]): number {
  const sorted = widths.toSorted((a, b) => a - b);
  const { length } = sorted;
  const [last, least] = [widths[length - 1]!, sorted[0]!];
  const median = (sorted[(length - 1) >> 1]! + sorted[length >> 1]!) / 2;
  const share = 1.25 / Math.sqrt(length);
  // Of few polls nobody can tell how much is jitter: it may be all.
  const leastJitter = length < 4 ? least : share * (median - least) / (1.678 - share);
  const jitter = Math.min(last, last - least + leastJitter);
  // Uniform within half the jitter either way is a twelfth; twice that, since jitter is a guess.
  return jitter ** 2 / 6 + FLOOR_NS ** 2;
}

/** The probability that one rate follows another. */
function odds(from: number, to: number): number {
  if (from !== to) return Math.abs(from - to) === 1 ? SWITCH : 0;
  return from === 0 || from === WANDERS.length - 1 ? 1 - SWITCH : 1 - 2 * SWITCH;
}

/** A frequency of which nothing is known. */
function unknown(offset: number, variance: number): State {
  return { offset, frequency: 0, covariance: [variance, 0, ANY_FREQUENCY ** 2] };
}
