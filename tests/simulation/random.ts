/**
 * Random numbers that follow from a seed, and the delays that are made of them.
 *
 * @module
 */

/** A generator: mulberry32, good enough for delays and small enough to read. */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
    for (let i = 0; i < 4; i++) this.bits();
  }

  /** Another generator that follows from this one. */
  fork(): Random {
    return new Random(this.bits());
  }

  /** 32 bits. */
  bits(): number {
    this.#state = this.#state + 0x6d2b79f5 >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ t >>> 15, t | 1);
    t ^= t + Math.imul(t ^ t >>> 7, t | 61);
    return (t ^ t >>> 14) >>> 0;
  }

  /** 64 bits. */
  bits64(): bigint {
    return BigInt(this.bits()) << 32n | BigInt(this.bits());
  }

  /** From 0, inclusive, to 1, exclusive. */
  uniform(): number {
    return (this.bits() + this.bits() / 2 ** 32) / 2 ** 32;
  }

  /** Mean 1. */
  exponential(): number {
    return -Math.log(1 - this.uniform());
  }

  /** Mean 0, variance 1. */
  normal(): number {
    return Math.sqrt(2 * this.exponential()) * Math.cos(2 * Math.PI * this.uniform());
  }

  /** One of several. */
  pick<T>(from: readonly T[]): T {
    return from[Math.floor(this.uniform() * from.length)]!;
  }
}

/** Draws a delay in seconds. */
export type Delay = (random: Random) => number;

/** Always the same. */
export const constant = (seconds: number): Delay => () => seconds;

/** Anything from `base` to `base + jitter`. */
export const uniform = (base: number, jitter: number): Delay => (random) =>
  base + jitter * random.uniform();

/** At least `base`; what is above it has the mean `jitter`. */
export const exponential = (base: number, jitter: number): Delay => (random) =>
  base + jitter * random.exponential();

/** At least `base`; what is above it has the mean `jitter` and a heavy tail (Lomax, shape 2.5). */
export const pareto = (base: number, jitter: number): Delay => (random) =>
  base + 1.5 * jitter * ((1 - random.uniform()) ** (-1 / 2.5) - 1);

/** `base`, or in one case of four `base + jitter`; a little noise on both. */
export const bimodal = (base: number, jitter: number): Delay => (random) =>
  base + (random.uniform() < 0.25 ? jitter : 0) + 0.05 * jitter * random.exponential();
