/**
 * Hours of kept time, by the product's own code, in virtual time: how far its
 * clock is off, and whether the truth is ever outside its bounds.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { serve } from "../../src/mod.ts";
import { type Update, Watch } from "../../src/sync/watch.ts";
import { survive } from "./adversity.ts";
import { exponential } from "./random.ts";
import { type Host, type Path, S, World } from "./world.ts";

/** A thing that happens. */
export interface Happening {
  /** Seconds after the beginning. */
  readonly at: number;
  readonly what: (client: Host, server: Host, world: World) => void;
}

/** What is simulated. */
export interface Keeping {
  readonly path: Path;
  readonly seconds: number;
  readonly happenings?: readonly Happening[];
  /** Seconds from which on errors count. Default 100. */
  readonly from?: number;
}

/** How it went. Errors are seconds. */
export interface Kept {
  readonly updates: readonly (Update & { readonly at: number })[];
  /** Of the clock, whenever it was valid. */
  readonly worst: number;
  readonly rms: number;
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

/** 100 µs each way, and as much jitter. */
export const LAN: Path = { out: exponential(100e-6, 100e-6), back: exponential(100e-6, 100e-6) };

/** 20 ms each way, and 5 ms of jitter. */
export const WAN: Path = { out: exponential(20e-3, 5e-3), back: exponential(20e-3, 5e-3) };

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
    worst: 200e-6,
    rms: 30e-6,
    frequency: 1e-6,
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
];

/** What is not as promised. */
export function faults(row: Row, kept: Kept): string[] {
  const { happenings = [], news = [], within = 0, invalid = 2, outside = 0 } = row;
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
  const expected = ["first", "agrees", ...news.map(({ what }) => what)];
  for (const { news, at } of kept.updates) {
    if (!expected.includes(news) || happenings.length === 0 && news === "first" && at > 2) {
      found.push(`"${news}" at ${at} s`);
    }
  }
  return found;
}

/** Keeps time once. */
export async function keep(seed: number, keeping: Keeping): Promise<Kept> {
  const { path, seconds, happenings = [], from = 100 } = keeping;
  const world = new World(seed);
  const server = world.host("server");
  const client = world.host("client", { offset: 3, frequency: 100, wander: 1e-9 });
  server.path = path;
  const serving = await world.run(serve({ hosts: ["server"], rate: 0, ...server.environment }));
  const stop = new AbortController();
  const watch = new Watch({ servers: ["server"], signal: stop.signal, ...client.environment });
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
        const error = Number(shown.time - truth) / 1e9;
        worst = Math.max(worst, Math.abs(error));
        squares += error ** 2;
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
  await world.run(serving.stop());
  const rms = Math.sqrt(squares / looks);
  return {
    updates,
    worst,
    rms,
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
  const args = parseArgs(Deno.args, { string: ["seeds", "row", "seed"] });
  const rows = ROWS.filter(({ name }) => args.row === undefined || name === args.row);
  if (rows.length === 0 && args.row !== ADVERSITY) {
    console.error(`keep: no row "${args.row}": expected one of`);
    for (const name of [...ROWS.map(({ name }) => name), ADVERSITY]) console.error(`  ${name}`);
    Deno.exit(2);
  }
  const seeds = args.seed === undefined
    ? Array.from({ length: Number(args.seeds ?? 200) }, (_, i) => i + 1)
    : [Number(args.seed)];
  if (args.row === ADVERSITY) return await printAdversity(seeds, args.seed !== undefined);
  const started = performance.now();
  let simulated = 0;
  console.log(`${seeds.length} seeds a row, the greatest of all; errors in µs, after 100 s\n`);
  console.log(
    "row                                    looks  outside     worst       rms  frequency     bound  faults",
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
    const micro = (seconds: number) => (seconds * 1e6).toFixed(1).padStart(10);
    console.log(
      row.name.padEnd(35) + String(sum(({ looks }) => looks)).padStart(9) +
        String(sum(({ outside }) => outside)).padStart(9) +
        micro(greatest(({ worst }) => worst)) + micro(greatest(({ rms }) => rms)) +
        `${(greatest(({ frequencyError }) => frequencyError) * 1e6).toFixed(2)} ppm`.padStart(11) +
        micro(greatest(({ lastBound }) => lastBound)) + String(broken).padStart(8),
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
