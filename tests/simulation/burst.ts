/**
 * One burst of a client against one server, by the product's own code, beside
 * what NTP's clock filter makes of the same exchanges.
 *
 * @module
 */

import { PHI } from "../../src/estimate/envelope.ts";
import { delay, type Exchange, offset } from "../../src/estimate/exchange.ts";
import { serve } from "../../src/mod.ts";
import { measure } from "../../src/sync/association.ts";
import type { Path } from "./world.ts";
import { trueOffset, World } from "./world.ts";

/** An estimate and how wrong it was. Seconds. */
export interface Judged {
  /** Distance of the offset from the true one. */
  readonly error: number;
  readonly bound: number;
}

/** What came of a burst. */
export interface Burst {
  readonly intersection: Judged;
  readonly minimumDelay: Judged;
  /** Seconds of simulated time. */
  readonly elapsed: number;
}

/**
 * NTP's clock filter (RFC 5905, section 10), the yardstick: the exchange with
 * the least delay, its offset, and half its delay and PHI times its age as the
 * bound.
 *
 * @param at Nanoseconds on the timeline of T1 and T4.
 * @param precision Seconds.
 * @returns Offset in nanoseconds, bound in seconds.
 */
export function minimumDelayFilter(
  exchanges: readonly Exchange[],
  at: bigint,
  precision: number,
): { offset: bigint; bound: number } {
  const best = exchanges.reduce((a, b) => delay(b) < delay(a) ? b : a);
  const age = Number(at - best.t4) / 1e9;
  return { offset: offset(best), bound: Number(delay(best)) / 2e9 + PHI * age + precision };
}

/** Frequency errors such that clocks drift apart by PHI at most, in ppm. */
const GREATEST_FREQUENCY = PHI / 2 * 1e6;

/**
 * Runs one burst in a world of its own. The clocks' errors follow from the
 * seed: up to ten seconds of offset, frequencies as far apart as PHI allows.
 *
 * @param path The least delay of its two ways together is `2 * base`.
 */
export async function burst(seed: number, path: Path, samples = 16): Promise<Burst> {
  const world = new World(seed);
  const { random } = world;
  const frequency = () => GREATEST_FREQUENCY * (2 * random.uniform() - 1);
  const server = world.host("server", { frequency: frequency(), precision: 50 });
  const client = world.host("client", {
    offset: 20 * random.uniform() - 10,
    frequency: frequency(),
    precision: 50,
  });
  server.path = path;
  const serving = await world.run(serve({ hosts: ["server"], ...server.environment }));
  const outcome = await world.run(measure(
    { name: "server", transport: "tcp", hostname: "server", port: 10085 },
    {
      samples,
      timeout: 1000,
      family: undefined,
      signal: new AbortController().signal,
      onSample: () => {},
    },
    client.environment,
  ));
  const elapsed = world.now / 1e9;
  if (outcome.status !== "measured") throw new Error(outcome.error);
  const truth = trueOffset(server.clock.exact(), client.clock.exactMonotonic());
  const { bounds: { lower, upper, at }, exchanges, packet } = outcome;
  const filtered = minimumDelayFilter(
    exchanges,
    at,
    client.clock.precision + 2 ** packet.precision,
  );
  await world.run(serving.stop());
  const off = (from: bigint) => Math.abs(Number(from - truth)) / 1e9;
  return {
    intersection: { error: off((lower + upper) >> 1n), bound: Number(upper - lower) / 2e9 },
    minimumDelay: { error: off(filtered.offset), bound: filtered.bound },
    elapsed,
  };
}
