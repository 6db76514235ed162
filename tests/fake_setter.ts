/**
 * A clock setter that sets nothing and remembers everything.
 *
 * @module
 */

import type { ClockSetter, Steering } from "../src/clock/clock_setter.ts";

/** What was to be done, in order. */
export class FakeSetter implements ClockSetter {
  readonly gain = 1 / 4;
  readonly steeringSeconds = 1;
  frequency = 0;
  isKeptByOther = false;
  /** What `steer` returns. */
  isDisturbed = false;
  readonly steps: bigint[] = [];
  readonly slews: bigint[] = [];
  readonly steered: Steering[] = [];

  step(by: bigint): void {
    this.steps.push(by);
  }

  slew(by: bigint): void {
    this.slews.push(by);
  }

  steer(steering: Steering): boolean {
    this.steered.push(steering);
    this.frequency = steering.frequency ?? this.frequency;
    return this.isDisturbed;
  }
}
