/**
 * `deno task simulate`: many seeds a row, and what came of them, as a table.
 *
 * `--seeds N` (default 10000) from `--from N` (default 1) on, `--row NAME` for
 * one row only, `--seed N` for one run of it, the figures of which are printed;
 * `--scenario NAME --seed N` replays a run of a scenario. Exits 1 if a bound
 * does not hold, a vote goes wrong, or a row is not what documentation
 * promises.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { type Burst, burst } from "./burst.ts";
import { FAR_HEADING, FAR_ROWS, farLine, inAllWays, isAsPromised, runFar } from "./far.ts";
import { bimodal, constant, type Delay, exponential, pareto, uniform } from "./random.ts";
import { five, type Scenario, SCENARIOS } from "./scenarios.ts";
import type { Path } from "./world.ts";

interface Row {
  readonly name: string;
  /** The least delay there and back, in seconds. */
  readonly base: number;
  readonly path: Path;
}

const both = (delay: Delay): Path => ({ out: delay, back: delay });

/** Most have the same law in both directions, though never the same draws. In the last two, one way takes no time. */
export const ROWS: readonly Row[] = [
  { name: "lan-exponential", base: 200e-6, path: both(exponential(100e-6, 100e-6)) },
  { name: "wan-exponential", base: 0.04, path: both(exponential(0.02, 0.005)) },
  { name: "wan-pareto", base: 0.04, path: both(pareto(0.02, 0.005)) },
  { name: "wan-uniform", base: 0.04, path: both(uniform(0.02, 0.01)) },
  { name: "wan-bimodal", base: 0.04, path: both(bimodal(0.02, 0.02)) },
  { name: "jitter-10x-exponential", base: 0.01, path: both(exponential(0.005, 0.05)) },
  { name: "jitter-10x-pareto", base: 0.01, path: both(pareto(0.005, 0.05)) },
  {
    name: "loss-33-percent",
    base: 0.04,
    path: { ...both(exponential(0.02, 0.005)), loss: 0.33 },
  },
  {
    name: "asymmetric-jitter",
    base: 0.04,
    path: { out: exponential(0.02, 0.02), back: exponential(0.02, 0.0002) },
  },
  { name: "asymmetric-delay", base: 0.04, path: { out: constant(0.0001), back: constant(0.0399) } },
  { name: "no-delay-out", base: 0.02, path: { out: constant(0), back: exponential(0.02, 0.005) } },
  { name: "no-delay-back", base: 0.02, path: { out: exponential(0.02, 0.005), back: constant(0) } },
];

/** Is a row one for which documentation promises narrow bounds: exponential or Pareto jitter, alike both ways? */
export const isPromised = ({ name, path: { out, back } }: Row): boolean =>
  out === back && /exponential|pareto/.test(name);

/** The figures of a row over many seeds. */
export interface RowFigures {
  /** Runs whose bound does not contain the true offset. */
  readonly outside: number;
  /** Medians of the error, in seconds. */
  readonly error: number;
  readonly filterError: number;
  /** Medians of the bound beyond half of the base delay, in seconds. */
  readonly excess: number;
  readonly filterExcess: number;
  /** Seconds of simulated time in all. */
  readonly elapsed: number;
}

/** Another seed for each row, so that no two rows have the same draws. */
function mixed({ name }: { readonly name: string }, seed: number): number {
  let hash = seed;
  for (const letter of name) hash = Math.imul(hash ^ letter.charCodeAt(0), 0x01000193) >>> 0;
  return hash;
}

/** Of what the worlds of a row are made, for so many seeds. */
export function worldsFor(row: { readonly name: string }, seeds: number, from = 1) {
  return Array.from({ length: seeds }, (_, i) => from + i)
    .map((seed) => ({ seed, world: mixed(row, seed) }));
}

/** Runs a row with so many seeds. */
export async function runRow(row: Row, seeds: number, from = 1): Promise<RowFigures> {
  const bursts: Burst[] = [];
  let outside = 0;
  for (const { seed, world } of worldsFor(row, seeds, from)) {
    const result = await burst(world, row.path);
    bursts.push(result);
    if (result.intersection.error <= result.intersection.bound) continue;
    outside++;
    console.error(`outside: deno task simulate --row ${row.name} --seed ${seed}`);
  }
  const median = (figure: (burst: Burst) => number) =>
    bursts.map(figure).sort((a, b) => a - b)[Math.floor(seeds / 2)]!;
  return {
    outside,
    error: median((each) => each.intersection.error),
    filterError: median((each) => each.minimumDelay.error),
    excess: median((each) => each.intersection.bound - row.base / 2),
    filterExcess: median((each) => each.minimumDelay.bound - row.base / 2),
    elapsed: bursts.reduce((sum, each) => sum + each.elapsed, 0),
  };
}

/** What must come of a vote of five servers, by how many are wrong. */
const VOTES: readonly [number, string][] = [
  [0, "all are truechimers, the bound holds"],
  [1, "the bound holds, the wrong one alone is a falseticker"],
  [2, "the bound holds, the wrong ones alone are falsetickers"],
  [3, "no fix"],
  [4, "no fix"],
];

async function failuresOf({ name, run }: Scenario, seeds: number, from: number): Promise<number> {
  let failures = 0;
  for (let seed = from; seed < from + seeds; seed++) {
    try {
      await run(seed);
    } catch (error) {
      failures++;
      console.error(`deno task simulate --scenario "${name}" --seed ${seed}: ${error}`);
    }
  }
  return failures;
}

const micro = (seconds: number) => (seconds * 1e6).toFixed(1).padStart(10);

/** @returns Seconds simulated. */
async function printRows(rows: readonly Row[], seeds: number, from: number): Promise<number> {
  let simulated = 0;
  console.log(`${seeds} seeds a row; medians in µs\n`);
  console.log(
    "                        runs    error                       bound beyond half the delay",
  );
  console.log(
    "row                     outside    tsync min. delay   ratio    tsync min. delay   ratio",
  );
  for (const row of rows) {
    const { outside, error, filterError, excess, filterExcess, elapsed } = await runRow(
      row,
      seeds,
      from,
    );
    simulated += elapsed;
    const narrow = error <= 0.4 * filterError && excess <= 0.4 * filterExcess;
    if (outside > 0 || isPromised(row) && !narrow) Deno.exitCode = 1;
    console.log(
      row.name.padEnd(24) + String(outside).padStart(7) +
        micro(error) + micro(filterError) + (error / filterError).toFixed(2).padStart(8) +
        micro(excess) + micro(filterExcess) +
        (filterExcess < 1e-6 ? "–" : (excess / filterExcess).toFixed(2)).padStart(8),
    );
  }
  return simulated;
}

async function main(): Promise<void> {
  const args = parseArgs(Deno.args, { string: ["seeds", "from", "row", "scenario", "seed"] });
  if (args.scenario !== undefined) {
    const scenario = SCENARIOS.find(({ name }) => name === args.scenario);
    if (scenario === undefined) {
      console.error(`simulate: no scenario "${args.scenario}": expected one of`);
      for (const { name } of SCENARIOS) console.error(`  ${name}`);
      Deno.exit(2);
    }
    await scenario.run(Number(args.seed ?? 1));
    console.log("as it must be");
    return;
  }
  const isWanted = ({ name }: { name: string }) => args.row === undefined || name === args.row;
  const rows = ROWS.filter(isWanted);
  const farRows = FAR_ROWS.filter(isWanted);
  if (rows.length + farRows.length === 0) {
    const names = [...ROWS, ...FAR_ROWS].map(({ name }) => name);
    console.error(`simulate: no row "${args.row}": expected ${names}`);
    Deno.exit(2);
  }
  if (args.seed !== undefined) {
    for (const row of rows) console.log(await burst(mixed(row, Number(args.seed)), row.path));
    for (const row of farRows) console.log(await inAllWays(row, mixed(row, Number(args.seed))));
    return;
  }
  const seeds = Number(args.seeds ?? 10_000);
  const from = Number(args.from ?? 1);
  const started = performance.now();
  let simulated = 0;
  if (rows.length > 0) {
    simulated += await printRows(rows, seeds, from);
  }
  if (farRows.length > 0) {
    console.log(`\n${seeds} seeds a row; ${FAR_HEADING}`);
    for (const row of farRows) {
      const figures = await runFar(row, worldsFor(row, seeds, from));
      simulated += figures.elapsed;
      if (!isAsPromised(row, figures)) Deno.exitCode = 1;
      console.log(farLine(row, figures));
    }
  }
  if (args.row === undefined) {
    console.log("\nfive servers, wan-exponential                                  runs not so");
    for (const [wrong, must] of VOTES) {
      const failures = await failuresOf(five(wrong), seeds, from);
      if (failures > 0) Deno.exitCode = 1;
      console.log(`${wrong} wrong: ${must}`.padEnd(62) + String(failures).padStart(12));
    }
  }
  const took = (performance.now() - started) / 1000;
  console.log(
    `\n${(simulated / 3600).toFixed(1)} h simulated in ${took.toFixed(0)} s: ` +
      `${(simulated / took).toFixed(0)} times as fast as real`,
  );
}

if (import.meta.main) await main();
