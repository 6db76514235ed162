/**
 * One fix of a client from one server, by the product's own code, beside what
 * NTP's clock filter makes of the same exchanges.
 *
 * @module
 */

import { MAX_DRIFT } from "../../src/estimate/envelope.ts";
import { serve } from "../../src/mod.ts";
import { nanoseconds } from "../../src/ntp/timestamp.ts";
import { Poller } from "../../src/sync/sync.ts";
import { type Path, trueOffset, World } from "./world.ts";

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
  /** Exchanges that counted. */
  readonly exchanges: number;
}

/** How the exchanges are made. */
export interface Way {
  /** Default: as many as `sync()` makes. */
  readonly samples?: number;
  /** Does one follow another over a long path too, as when time is kept? Default: no. */
  readonly inSequence?: boolean;
}

/** One exchange's own offset and delay, in seconds. */
interface Sample {
  readonly offset: number;
  readonly delay: number;
}

/**
 * NTP's clock filter (RFC 5905, section 10), the yardstick: the exchange with
 * the least delay (of equal ones the latest), its offset, and half its delay
 * as the bound. What NTP adds to that for age is left out, in its favour.
 */
export function minimumDelayFilter(samples: readonly Sample[]): { offset: number; bound: number } {
  const { offset, delay } = samples.reduce((a, b) => b.delay <= a.delay ? b : a);
  return { offset, bound: delay / 2 };
}

/** Frequency errors such that clocks drift apart by MAX_DRIFT at most, in ppm. */
const GREATEST_FREQUENCY = MAX_DRIFT / 2 * 1e6;

/**
 * Takes one fix in a world of its own. The clocks' errors follow from the
 * seed: up to ten seconds of offset, frequencies up to MAX_DRIFT apart.
 */
export async function burst(
  seed: number,
  path: Path | ((world: World) => Path),
  { samples, inSequence = false }: Way = {},
): Promise<Burst> {
  const world = new World(seed);
  const { random } = world;
  const frequency = () => GREATEST_FREQUENCY * (2 * random.uniform() - 1);
  const server = world.host("server", { frequency: frequency(), precision: 50 });
  const client = world.host("client", {
    offset: 20 * random.uniform() - 10,
    frequency: frequency(),
    precision: 50,
  });
  server.path = typeof path === "function" ? path(world) : path;
  const serving = await world.run(serve({ hosts: ["server"], ...server.environment }));
  const options = { servers: ["server"], timeout: 1000, samples, ...client.environment };
  const { fix } = await world.run(new Poller(options, inSequence).poll());
  const elapsed = world.now / 1e9;
  const truth = trueOffset(server.clock.exact(), client.clock.exact());
  await world.run(serving.stop());
  if (!fix.synchronised) throw new Error(fix.servers[0]!.error!);
  const off = (offset: number) => Math.abs(Number(nanoseconds(offset) - truth)) / 1e9;
  const { exchanges } = fix.servers[0]!.figures!;
  const filtered = minimumDelayFilter(exchanges);
  return {
    intersection: { error: off(fix.offset!), bound: fix.errorBound! },
    minimumDelay: { error: off(filtered.offset), bound: filtered.bound },
    elapsed,
    exchanges: exchanges.length,
  };
}
