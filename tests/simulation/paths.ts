/**
 * Paths on which time is kept.
 *
 * @module
 */

import { constant, type Delay, exponential, type Random } from "./random.ts";
import { type Path, S, type World } from "./world.ts";

/** A path alike in both directions. */
const both = (delay: Delay): Path => ({ out: delay, back: delay });

/** 100 µs each way, and as much jitter. */
export const LAN = both(exponential(100e-6, 100e-6));

/** 100 µs each way, and 1 µs of jitter. */
export const QUIET = both(exponential(100e-6, 1e-6));

/** 20 ms each way, and 5 ms of jitter. */
export const WAN = both(exponential(20e-3, 5e-3));

/** 20 ms each way, and ten times as much jitter one way as the other. */
export const ASYMMETRIC: Path = { out: exponential(20e-3, 10e-3), back: exponential(20e-3, 1e-3) };

/**
 * Each way has a queue of its own that lasts: what delay it adds now it mostly still adds some
 * seconds later. It is exponentially distributed, and independent of what is added to it.
 *
 * @param calm The delay without it.
 * @param queue Seconds that it adds on average.
 * @param seconds Until its autocorrelation is 1/e.
 */
export const lasting = (calm: Delay, queue: number, seconds: number) => (world: World): Path => {
  const way = (): Delay => {
    const random = world.random.fork();
    // The squares of two Gaussians have an exponential sum, and the square of their autocorrelation.
    const parts = [random.normal(), random.normal()];
    let last = world.now;
    return (draw: Random) => {
      const kept = Math.exp(-(world.now - last) / S / (2 * seconds));
      last = world.now;
      const fresh = Math.sqrt(1 - kept ** 2);
      parts.forEach((part, i) => parts[i] = kept * part + fresh * random.normal());
      return calm(draw) + queue * (parts[0]! ** 2 + parts[1]! ** 2) / 2;
    };
  };
  return { out: way(), back: way() };
};

/**
 * Each way has a queue of its own that comes and goes.
 *
 * @param calm The delay without it.
 * @param queue Seconds that it adds on average while it is there.
 * @param on Seconds that it is there on average.
 * @param off Seconds until the next one on average.
 */
export const onOff =
  (calm: Delay, queue: number, on: number, off: number) => (world: World): Path => {
    const way = (): Delay => {
      const random = world.random.fork();
      let [begins, ends] = [off * S * random.exponential(), 0];
      return (draw: Random) => {
        while (world.now > begins) {
          ends = begins + on * S * random.exponential();
          begins = ends + off * S * random.exponential();
        }
        return calm(draw) + (world.now < ends ? queue * random.exponential() : 0);
      };
    };
    return { out: way(), back: way() };
  };

/** What comes back waits for the next of these moments, as for a radio that sleeps in between. */
export const inWaves = (delay: Delay, seconds: number) => (world: World): Path => {
  const phase = world.random.uniform();
  return {
    out: delay,
    back: (random) => {
      const now = world.now / S / seconds + phase;
      return (Math.ceil(now + delay(random) / seconds) - now) * seconds;
    },
  };
};

/** As {@linkcode LAN}, but what jitter is now it mostly still is some seconds later. */
export const correlated = lasting(constant(100e-6), 100e-6, 15);

/** As {@linkcode WAN}, but each way has a queue for a minute in every six, on average: 50 ms more. */
export const congested = onOff(exponential(20e-3, 5e-3), 50e-3, 60, 300);
