/**
 * Hours of kept time, by the product's own code, in virtual time: how far its
 * clock is off, and whether the truth is ever outside its bounds.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { Corrector, serve } from "../../src/mod.ts";
import { type Update, Watch } from "../../src/sync/watch.ts";
import { survive } from "./adversity.ts";
import { SimulatedKernel } from "./kernel.ts";
import { ASYMMETRIC, congested, correlated, LAN, QUIET, WAN } from "./paths.ts";
import { type Host, type Path, S, World } from "./world.ts";

/** A thing that happens. */
export interface Happening {
  /** Seconds after the beginning. */
  readonly at: number;
  readonly what: (client: Host, server: Host, world: World) => void;
}

/** What is simulated. */
export interface Keeping {
  readonly path: Path | ((world: World) => Path);
  readonly seconds: number;
  /** Random walk of the oscillator's frequency: a second's standard deviation. Default 1e-9. */
  readonly wander?: number;
  readonly happenings?: readonly Happening[];
  /** Seconds from which on errors count. Default 100. */
  readonly from?: number;
  /** Is it about the system clock, which is corrected, and not about the kept one? Default: no. */
  readonly isSteered?: boolean;
}

/** How it went. Errors are seconds. */
export interface Kept {
  readonly updates: readonly (Update & { readonly at: number })[];
  /** Of the clock, whenever it was valid. */
  readonly worst: number;
  readonly rms: number;
  /** The same when it has settled, after {@linkcode SETTLED} seconds, and the looks since then. */
  readonly settled: { readonly worst: number; readonly rms: number; readonly looks: number };
  /** Requests that were answered. */
  readonly requests: number;
  /** Looks at the clock, and those that found the truth outside its bounds, or no clock. */
  readonly looks: number;
  readonly outside: number;
  readonly invalid: number;
  /** Seconds at which it was looked at and not valid. */
  readonly invalidAt: readonly number[];
  /** Of the frequency, when it counts: a fraction. */
  readonly frequencyError: number;
  /** Polls after which the true frequency was outside its bounds. */
  readonly frequencyOutside: number;
  /** The last bound, half of the interval's width. */
  readonly lastBound: number;
}

/** Seconds after which a clock has settled. */
const SETTLED = 1000;

/** A row: what is simulated, and what is promised of it. */
export interface Row extends Keeping {
  readonly name: string;
  /** Seconds: greatest and root-mean-square error. */
  readonly worst: number;
  readonly rms: number;
  /** A fraction: the greatest error of the frequency. Default: any. */
  readonly frequency?: number;
  /** What updates may say beside `first` and `agrees`, and must say at least once, after that time. */
  readonly news?: readonly { readonly what: Update["news"]; readonly at: number }[];
  /** What updates may say beside that, whenever. */
  readonly allowed?: readonly Update["news"][];
  /** Seconds after which what happened is noticed. */
  readonly within?: number;
  /** Looks at which the truth may be outside. Default 0. */
  readonly outside?: number;
  /** How long the clock may be not valid, in seconds. Default 2: until the first fix. */
  readonly invalid?: number;
}

const HOUR = 3600;

export const ROWS: readonly Row[] = [
  {
    name: "LAN",
    path: LAN,
    seconds: 10_000,
    worst: 100e-6,
    rms: 10e-6,
    frequency: 2e-6,
  },
  { name: "WAN", path: WAN, seconds: 10_000, worst: 2e-3, rms: 0.3e-3 },
  {
    name: "an hour without the server",
    path: LAN,
    seconds: 2 * HOUR,
    happenings: [{ at: HOUR, what: (_, server) => server.dead = true }],
    news: [{ what: "lost", at: HOUR }],
    within: 100,
    // 1e-9 of random walk of the frequency adds up, and so does what was not known of it.
    worst: 1e-3,
    rms: 0.5e-3,
  },
  {
    name: "suspended for ten minutes",
    path: LAN,
    seconds: 5000,
    happenings: [{ at: 3000, what: (client) => client.suspend(600) }],
    news: [{ what: "disturbed", at: 3600 }],
    within: 2,
    worst: 500e-6,
    rms: 50e-6,
    // Nobody can look while it sleeps, but the simulation can.
    invalid: 610,
  },
  {
    name: "the local clock is set, by 0.3 s",
    path: LAN,
    seconds: 5000,
    happenings: [{ at: 3000, what: (client) => client.clock.step(0.3) }],
    news: [{ what: "disturbed", at: 3000 }],
    within: 2,
    worst: 500e-6,
    rms: 50e-6,
    invalid: 5,
  },
  {
    name: "the server's clock is set, by 1 s",
    path: LAN,
    seconds: 5000,
    happenings: [{ at: 3000, what: (_, server) => server.clock.step(1) }],
    news: [{ what: "step", at: 3000 }],
    // At the next poll: until then nobody can know.
    within: 65,
    worst: 1.01,
    rms: 0.2,
    outside: 70,
  },
  {
    name: "the frequency changes by 10 ppm",
    path: LAN,
    seconds: 5000,
    happenings: [{ at: 3000, what: (client) => client.clock.setFrequency(110) }],
    news: [{ what: "frequency", at: 3000 }],
    within: 200,
    worst: 1.5e-3,
    rms: 100e-6,
  },
  {
    name: "the frequency changes by 14 ppm",
    path: LAN,
    seconds: 5000,
    happenings: [{ at: 3000, what: (client) => client.clock.setFrequency(114) }],
    news: [{ what: "frequency", at: 3000 }],
    within: 200,
    worst: 2e-3,
    rms: 150e-6,
  },
  {
    // The first change cannot be seen yet, and the second nobody is there to see.
    name: "2 ppm, and 14 more in holdover",
    path: LAN,
    seconds: 4 * HOUR,
    happenings: [
      { at: HOUR, what: (client) => client.clock.setFrequency(102) },
      { at: HOUR + 65, what: (_, server) => server.dead = true },
      { at: HOUR + 100, what: (client) => client.clock.setFrequency(116) },
    ],
    news: [{ what: "lost", at: HOUR }],
    within: 200,
    worst: 0.2,
    rms: 0.1,
  },
  // Those on which chrony was measured too (docs/watch.md).
  {
    name: "LAN, 1e-8",
    path: LAN,
    seconds: 10_000,
    wander: 1e-8,
    allowed: ["frequency"],
    worst: 200e-6,
    rms: 15e-6,
  },
  {
    name: "WAN, 1e-8",
    path: WAN,
    seconds: 10_000,
    wander: 1e-8,
    allowed: ["frequency"],
    worst: 5e-3,
    rms: 0.3e-3,
  },
  { name: "WAN, congestion", path: congested, seconds: 10_000, worst: 20e-3, rms: 2e-3 },
  {
    name: "LAN, a step of 10 ppm",
    path: LAN,
    seconds: 5000,
    happenings: [{
      at: 3000,
      // Not always as long after a poll.
      what: (client, _, world) =>
        world.at(world.now + 64 * world.random.uniform() * S, () => client.clock.setFrequency(110)),
    }],
    news: [{ what: "frequency", at: 3000 }],
    within: 400,
    worst: 1.5e-3,
    rms: 100e-6,
  },
  {
    name: "LAN, a sine of 0.5 ppm an hour",
    path: LAN,
    seconds: 10_000,
    wander: 0,
    happenings: [{ at: 0, what: sine }],
    allowed: ["frequency"],
    worst: 200e-6,
    rms: 15e-6,
  },
  { name: "WAN, jitter 10:1", path: ASYMMETRIC, seconds: 10_000, worst: 5e-3, rms: 0.4e-3 },
  { name: "LAN, jitter of 30 s", path: correlated, seconds: 10_000, worst: 500e-6, rms: 50e-6 },
  { name: "quiet LAN", path: QUIET, seconds: 10_000, worst: 10e-6, rms: 1e-6 },
  // The system clock, steered: no worse than the one that is kept.
  { name: "LAN, --set", path: LAN, seconds: 10_000, isSteered: true, worst: 100e-6, rms: 10e-6 },
  { name: "WAN, --set", path: WAN, seconds: 10_000, isSteered: true, worst: 2e-3, rms: 0.3e-3 },
  {
    name: "LAN, 1e-8, --set",
    path: LAN,
    seconds: 10_000,
    wander: 1e-8,
    isSteered: true,
    allowed: ["frequency"],
    worst: 200e-6,
    rms: 15e-6,
  },
  {
    name: "quiet LAN, --set",
    path: QUIET,
    seconds: 10_000,
    isSteered: true,
    worst: 10e-6,
    rms: 1e-6,
  },
];

/** Its frequency is 100 ppm, and up to 0.5 ppm more or less in the course of an hour. */
function sine(client: Host, _: Host, world: World): void {
  const phase = 2 * Math.PI * world.random.uniform();
  const change = () => {
    client.clock.setFrequency(100 + 0.5 * Math.sin(2 * Math.PI * world.now / S / HOUR + phase));
    world.at(world.now + S, change);
  };
  change();
}

/** What is not as promised. */
export function faults(row: Row, kept: Kept): string[] {
  const { happenings = [], news = [], allowed = [], within = 0, invalid = 2, outside = 0 } = row;
  const found: string[] = [];
  const check = (what: string, value: number, most: number) => {
    if (!(value <= most)) found.push(`${what}: ${value}, more than ${most}`);
  };
  check("worst error", kept.worst, row.worst);
  check("rms error", kept.rms, row.rms);
  check("error of the frequency", kept.frequencyError, row.frequency ?? Infinity);
  check("outside", kept.outside, outside);
  check("frequency outside", kept.frequencyOutside, 0);
  check("not valid", kept.invalid, invalid);
  const [start] = kept.updates;
  if (start?.news !== "first" || start.at > 2) found.push("no fix in the first burst");
  for (const { what, at } of news) {
    const told = kept.updates.find((update) => update.news === what && update.at >= at);
    check(`"${what}" is told after`, told === undefined ? Infinity : told.at - at, within);
  }
  const expected = ["first", "agrees", ...allowed, ...news.map(({ what }) => what)];
  for (const { news, at } of kept.updates) {
    if (!expected.includes(news) || happenings.length === 0 && news === "first" && at > 2) {
      found.push(`"${news}" at ${at} s`);
    }
  }
  return found;
}

/** Keeps time once. */
export async function keep(seed: number, keeping: Keeping): Promise<Kept> {
  const { path, seconds, wander = 1e-9, happenings = [], from = 100, isSteered = false } = keeping;
  const world = new World(seed);
  const server = world.host("server");
  const client = world.host("client", { offset: 3, frequency: 100, wander });
  server.path = typeof path === "function" ? path(world) : path;
  const serving = await world.run(serve({ hosts: ["server"], rate: 0, ...server.environment }));
  const stop = new AbortController();
  const kernel = new SimulatedKernel(world, client.clock);
  const watch = new Watch({
    servers: ["server"],
    signal: stop.signal,
    corrector: isSteered ? new Corrector(kernel) : undefined,
    ...client.environment,
  });
  const updates: (Update & { at: number })[] = [];
  let frequencyOutside = 0;
  const watching = (async () => {
    for await (const update of watch) {
      updates.push({ ...update, at: world.now / S });
      const { frequency, frequencyBound } = update;
      if (frequency === null) continue;
      if (Math.abs(frequency - client.clock.drift()) > frequencyBound!) frequencyOutside++;
    }
  })();
  for (const { at, what } of happenings) {
    world.at(at * S, () => what(client, server, world));
  }
  let [worst, squares, looks, outside, invalid, frequencyError, lastBound] = [0, 0, 0, 0, 0, 0, 0];
  const settled = { worst: 0, squares: 0, looks: 0 };
  const invalidAt: number[] = [];
  const look = () => {
    const at = world.now / S;
    const shown = watch.clock.now(true);
    const { start, count } = server.clock.exact();
    const truth = start + BigInt(Math.round(count));
    if (shown === null) {
      invalid++;
      invalidAt.push(at);
    } else {
      looks++;
      // A nanosecond is lost where the truth is rounded.
      if (truth < shown.earliest - 1n || truth > shown.latest + 1n) outside++;
      lastBound = Number(shown.latest - shown.earliest) / 2e9;
      if (at >= from) {
        const time = isSteered ? client.clock.realtime() : shown.time;
        const error = Number(time - truth) / 1e9;
        worst = Math.max(worst, Math.abs(error));
        squares += error ** 2;
        if (at >= SETTLED) {
          settled.worst = Math.max(settled.worst, Math.abs(error));
          settled.squares += error ** 2;
          settled.looks++;
        }
        const frequency = updates.at(-1)?.frequency ?? 0;
        frequencyError = Math.max(frequencyError, Math.abs(frequency - client.clock.drift()));
      }
    }
    world.at(world.now + (0.5 + world.random.uniform()) * S, look);
  };
  world.at(0.5 * S, look);
  await world.sleep(seconds);
  stop.abort();
  await world.run(watching);
  const requests = serving.counters.replies;
  await world.run(serving.stop());
  const rms = Math.sqrt(squares / looks);
  return {
    updates,
    worst,
    rms,
    settled: { ...settled, rms: Math.sqrt(settled.squares / settled.looks) },
    requests,
    looks,
    outside,
    invalid,
    invalidAt,
    frequencyError,
    frequencyOutside,
    lastBound,
  };
}

/** The name of the row in which all that can go wrong does. */
const ADVERSITY = "adversity";

/** Prints the rows, or replays one. */
async function main(): Promise<void> {
  const args = parseArgs(Deno.args, { string: ["seeds", "first", "row", "seed"] });
  const rows = ROWS.filter(({ name }) => args.row === undefined || name === args.row);
  if (rows.length === 0 && args.row !== ADVERSITY) {
    console.error(`keep: no row "${args.row}": expected one of`);
    for (const name of [...ROWS.map(({ name }) => name), ADVERSITY]) console.error(`  ${name}`);
    Deno.exit(2);
  }
  const seeds = args.seed === undefined
    ? Array.from({ length: Number(args.seeds ?? 200) }, (_, i) => Number(args.first ?? 1) + i)
    : [Number(args.seed)];
  if (args.row === ADVERSITY) return await printAdversity(seeds, args.seed !== undefined);
  const started = performance.now();
  let simulated = 0;
  console.log(`${seeds.length} seeds a row from ${seeds[0]}; errors in µs\n`);
  console.log(
    "                                            greatest, after 100 s             | of all, after 1000 s\n" +
      "row                                outside   worst    rms  frequency    bound |    rms   worst  requests/h  faults",
  );
  for (const row of rows) {
    const all: Kept[] = [];
    let broken = 0;
    for (const seed of seeds) {
      const kept = await keep(seed, row);
      all.push(kept);
      const found = faults(row, kept);
      if (found.length === 0) continue;
      broken++;
      Deno.exitCode = 1;
      console.error(`deno task keep --row "${row.name}" --seed ${seed}: ${found.join("; ")}`);
    }
    simulated += seeds.length * row.seconds;
    const greatest = (figure: (kept: Kept) => number) => Math.max(...all.map(figure));
    const sum = (figure: (kept: Kept) => number) => all.reduce((a, kept) => a + figure(kept), 0);
    const micro = (seconds: number, width: number) => (seconds * 1e6).toFixed(1).padStart(width);
    const settledLooks = sum(({ settled }) => settled.looks);
    const settledSquares = sum(({ settled }) => settled.rms ** 2 * settled.looks);
    const frequency = (greatest(({ frequencyError }) => frequencyError) * 1e6).toFixed(2);
    const requests = sum((kept) => kept.requests) / seeds.length / row.seconds * HOUR;
    console.log(
      row.name.padEnd(33) + String(sum(({ outside }) => outside)).padStart(9) +
        micro(greatest(({ worst }) => worst), 10) + micro(greatest(({ rms }) => rms), 9) +
        `${frequency} ppm`.padStart(11) + micro(greatest(({ lastBound }) => lastBound), 9) + " |" +
        micro(Math.sqrt(settledSquares / settledLooks), 9) +
        micro(greatest(({ settled }) => settled.worst), 10) +
        requests.toFixed(0).padStart(8) + String(broken).padStart(8),
    );
  }
  const took = (performance.now() - started) / 1000;
  console.log(`\n${(simulated / 3600).toFixed(0)} h simulated in ${took.toFixed(0)} s`);
  if (args.row === undefined) await printAdversity(seeds, false);
}

/** @param tells Does it tell what happened? */
async function printAdversity(seeds: readonly number[], tells: boolean): Promise<void> {
  let [looks, outside, followed] = [0, 0, 0];
  for (const seed of seeds) {
    const survived = await survive(seed);
    looks += survived.looks;
    outside += survived.outside;
    followed += survived.followed;
    if (tells) console.log(survived.log.join("\n"));
    if (survived.outside === 0) continue;
    Deno.exitCode = 1;
    console.error(`deno task keep --row ${ADVERSITY} --seed ${seed}: ${survived.outside} outside`);
  }
  console.log(
    `\n${ADVERSITY}: ${seeds.length} seeds, ${looks} looks and fixes, ${outside} outside, ` +
      `${followed} of them as a liar says`,
  );
}

if (import.meta.main) await main();
