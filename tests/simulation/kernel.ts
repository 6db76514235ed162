/**
 * A kernel that steers a simulated clock, as Linux's does (kernel/time/ntp.c).
 *
 * @module
 */

import type { ClockSetter, Steering } from "../../src/clock/clock_setter.ts";
import { S, type SimulatedClock, type World } from "./world.ts";

/** Steers a clock. */
export class SimulatedKernel implements ClockSetter {
  readonly gain = 1 / 4;
  readonly steeringSeconds = 1;
  readonly isKeptByOther = false;
  frequency = 0;
  /** What it was told last. */
  told: Steering | null = null;
  /** Nanoseconds added by steps, one after another. */
  readonly steps: bigint[] = [];
  readonly #clock: SimulatedClock;
  /** Nanoseconds still to be slewed, and in this second. */
  #phase = 0;
  #slew = 0;
  /** What else slews the clock, in ppm. */
  #other = 0;

  constructor(world: World, clock: SimulatedClock) {
    this.#clock = clock;
    const everySecond = () => {
      this.#slew = this.#phase * this.gain;
      this.#phase -= this.#slew;
      this.#apply();
      world.at(world.now + S, everySecond);
    };
    world.at(world.now + world.random.uniform() * S, everySecond);
  }

  step(by: bigint): void {
    this.steps.push(by);
    this.#clock.step(Number(by) / 1e9);
    this.#phase = this.#slew = 0;
    this.#apply();
  }

  slew(): void {
    throw new Error("a kept clock is steered");
  }

  steer(steering: Steering): boolean {
    this.told = steering;
    this.#phase = steering.phase;
    this.frequency = steering.frequency ?? this.frequency;
    this.#apply();
    return false;
  }

  /** Another slew, beside: `adjtime`'s, in ppm. */
  disturb(ppm: number): void {
    this.#other = ppm;
    this.#apply();
  }

  /** The second that has begun goes on as it is. */
  #apply(): void {
    this.#clock.steered = this.frequency;
    this.#clock.slew((this.frequency + this.#slew / S) * 1e6 + this.#other);
  }
}
