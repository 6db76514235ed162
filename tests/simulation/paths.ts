/**
 * Paths on which time is kept.
 *
 * @module
 */

import { type Delay, exponential, type Random } from "./random.ts";
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

/** As {@linkcode LAN}, but what jitter is now it mostly still is some seconds later (30). */
export function correlated(world: World): Path {
  const way = (): Delay => {
    const random = world.random.fork();
    // The squares of two Gaussians have an exponential sum.
    const parts = [random.normal(), random.normal()];
    let last = world.now;
    return () => {
      const kept = Math.exp(-(world.now - last) / S / 30);
      last = world.now;
      const fresh = Math.sqrt(1 - kept ** 2);
      parts.forEach((part, i) => parts[i] = kept * part + fresh * random.normal());
      return 100e-6 + 100e-6 * (parts[0]! ** 2 + parts[1]! ** 2) / 2;
    };
  };
  return { out: way(), back: way() };
}

/** As {@linkcode WAN}, but each way has a queue for a minute in every six, on average: 50 ms more. */
export function congested(world: World): Path {
  const way = (): Delay => {
    const random = world.random.fork();
    let [begins, ends] = [300 * S * random.exponential(), 0];
    const calm = exponential(20e-3, 5e-3);
    return (draw: Random) => {
      while (world.now > begins) {
        ends = begins + 60 * S * random.exponential();
        begins = ends + 300 * S * random.exponential();
      }
      return calm(draw) + (world.now < ends ? 50e-3 * random.exponential() : 0);
    };
  };
  return { out: way(), back: way() };
}
