/**
 * Long paths: what requests that are sent ahead make of them, beside 16 exchanges of which one
 * follows another.
 *
 * @module
 */

import { type Burst, burst, type Way } from "./burst.ts";
import { inWaves, lasting, onOff } from "./paths.ts";
import { exponential, pareto } from "./random.ts";
import type { Path, World } from "./world.ts";

/** What is simulated, and what is promised of it. */
export interface FarRow {
  readonly name: string;
  readonly path: Path | ((world: World) => Path);
  /** The most that errors may be, of those of exchanges in sequence: medians. Default: anything. */
  readonly promised?: number;
}

const both = (delay: Path["out"]): Path => ({ out: delay, back: delay });

/** 100 ms there and back, and a little jitter. */
const CALM = exponential(0.05, 0.0005);

/** Jitter that is independent from one message to the next, and delays that last. */
const [INDEPENDENT, LASTING] = [0.7, 1.3];

export const FAR_ROWS: readonly FarRow[] = [
  { name: "far-20-ms", path: both(exponential(0.01, 0.001)), promised: INDEPENDENT },
  { name: "far-100-ms", path: both(exponential(0.05, 0.005)), promised: INDEPENDENT },
  { name: "far-300-ms", path: both(exponential(0.15, 0.015)), promised: INDEPENDENT },
  { name: "far-pareto", path: both(pareto(0.05, 0.005)), promised: INDEPENDENT },
  {
    name: "far-window",
    path: { ...both(exponential(0.05, 0.005)), window: 10 },
    promised: INDEPENDENT,
  },
  { name: "far-waves-50-ms", path: inWaves(exponential(0.05, 0.005), 0.05) },
  { name: "far-lasts-50-ms", path: lasting(CALM, 0.01, 0.05), promised: LASTING },
  { name: "far-lasts-200-ms", path: lasting(CALM, 0.01, 0.2), promised: LASTING },
  { name: "far-lasts-1-s", path: lasting(CALM, 0.01, 1), promised: LASTING },
  { name: "far-lasts-2-s", path: lasting(CALM, 0.01, 2) },
  {
    name: "far-lasts-window",
    path: (world) => ({ ...lasting(CALM, 0.01, 0.2)(world), window: 10 }),
    promised: LASTING,
  },
  { name: "far-on-off", path: onOff(CALM, 0.02, 0.2, 0.4), promised: LASTING },
];

/** The ways that are compared. */
const WAYS: readonly Way[] = [{}, { samples: 32 }, { samples: 16, inSequence: true }];

/** Figures over many seeds, of one way. */
export interface WayFigures {
  /** Runs whose bound does not contain the true offset. */
  readonly outside: number;
  /** Seconds. */
  readonly medianError: number;
  readonly rmsError: number;
  /** Medians: seconds. */
  readonly bound: number;
  readonly elapsed: number;
  readonly meanElapsed: number;
  readonly meanExchanges: number;
  /** The part of runs with more than 32 exchanges. */
  readonly longer: number;
}

/** Runs a way with seeds. */
export async function runFar(
  { name, path }: FarRow,
  way: Way,
  seeds: readonly number[],
): Promise<WayFigures> {
  const bursts: Burst[] = [];
  let outside = 0;
  for (const seed of seeds) {
    const result = await burst(seed, path, way);
    bursts.push(result);
    if (result.intersection.error <= result.intersection.bound) continue;
    outside++;
    console.error(`outside: ${name}, world ${seed}, ${JSON.stringify(way)}`);
  }
  const all = (figure: (burst: Burst) => number) => bursts.map(figure).sort((a, b) => a - b);
  const median = (figure: (burst: Burst) => number) => all(figure)[Math.floor(seeds.length / 2)]!;
  const mean = (figure: (burst: Burst) => number) =>
    all(figure).reduce((a, b) => a + b) / seeds.length;
  return {
    outside,
    medianError: median((each) => each.intersection.error),
    rmsError: Math.sqrt(mean((each) => each.intersection.error ** 2)),
    bound: median((each) => each.intersection.bound),
    elapsed: median((each) => each.elapsed),
    meanElapsed: mean((each) => each.elapsed),
    meanExchanges: mean((each) => each.exchanges),
    longer: mean((each) => Number(each.exchanges > 32)),
  };
}

if (import.meta.main) {
  const [from, count, ...names] = Deno.args;
  for (const row of FAR_ROWS) {
    if (names.length > 0 && !names.includes(row.name)) continue;
    let h = 0;
    for (const c of row.name) h = Math.imul(h ^ c.charCodeAt(0), 0x01000193) >>> 0;
    const seeds = Array.from({ length: Number(count) }, (_, i) => Number(from) + i + h >>> 0);
    const t = performance.now();
    const [def, plain, seq] = [
      await runFar(row, WAYS[0]!, seeds),
      await runFar(row, WAYS[1]!, seeds),
      await runFar(row, WAYS[2]!, seeds),
    ];
    const f = (w: WayFigures) =>
      `${(w.medianError * 1e6).toFixed(0).padStart(6)} ${
        (w.medianError / seq.medianError).toFixed(2)
      } ${(w.rmsError / seq.rmsError).toFixed(2)} t=${w.meanElapsed.toFixed(2)} n=${
        w.meanExchanges.toFixed(1)
      } +${(w.longer * 100).toFixed(0)}% out=${w.outside}`;
    console.log(
      `${row.name.padEnd(18)} rule ${f(def)} | 32 ${f(plain)} | seq ${f(seq)} | ${
        ((performance.now() - t) / 1000).toFixed(0)
      } s`,
    );
  }
}
