/**
 * A Kalman filter for an offset that grows at a frequency which wanders at
 * random (a constant-velocity model).
 *
 * @module
 */

/** A Gaussian estimate of offset (nanoseconds) and frequency (nanoseconds a second). */
export interface State {
  readonly offset: number;
  readonly frequency: number;
  /** The variance of the offset, the covariance of both, the variance of the frequency. */
  readonly covariance: readonly [number, number, number];
}

/**
 * What a state becomes.
 *
 * @param seconds How much later.
 * @param wander How fast the frequency wanders: its standard deviation after a second, in
 * nanoseconds a second.
 */
export function predict(state: State, seconds: number, wander: number): State {
  const { offset, frequency, covariance: [xx, xf, ff] } = state;
  const density = wander ** 2;
  return {
    offset: offset + seconds * frequency,
    frequency,
    covariance: [
      xx + 2 * seconds * xf + seconds ** 2 * ff + density * seconds ** 3 / 3,
      xf + seconds * ff + density * seconds ** 2 / 2,
      ff + density * seconds,
    ],
  };
}

/**
 * Corrects a state by a measured offset.
 *
 * @param variance How far the measured offset can be off: nanoseconds squared.
 * @returns The state, and the logarithm of how likely the offset was, but for a constant.
 */
export function update(
  { offset, frequency, covariance: [xx, xf, ff] }: State,
  measured: number,
  variance: number,
): { readonly state: State; readonly logLikelihood: number } {
  const innovation = measured - offset;
  const expected = xx + variance;
  const [gain, frequencyGain] = [xx / expected, xf / expected];
  return {
    state: {
      offset: offset + gain * innovation,
      frequency: frequency + frequencyGain * innovation,
      covariance: [(1 - gain) * xx, (1 - gain) * xf, ff - frequencyGain * xf],
    },
    logLikelihood: -(innovation ** 2 / expected + Math.log(expected)) / 2,
  };
}

/** The Gaussian that has the mean and covariance of several, weighted. */
export function mix(states: readonly State[], weights: readonly number[]): State {
  let [sum, offset, frequency] = [0, 0, 0];
  for (const [i, state] of states.entries()) {
    sum += weights[i]!;
    offset += weights[i]! * state.offset;
    frequency += weights[i]! * state.frequency;
  }
  offset /= sum;
  frequency /= sum;
  let [xx, xf, ff] = [0, 0, 0];
  for (const [i, { covariance, ...state }] of states.entries()) {
    const weight = weights[i]! / sum;
    const [x, f] = [state.offset - offset, state.frequency - frequency];
    xx += weight * (covariance[0] + x * x);
    xf += weight * (covariance[1] + x * f);
    ff += weight * (covariance[2] + f * f);
  }
  return { offset, frequency, covariance: [xx, xf, ff] };
}
