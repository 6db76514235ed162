/**
 * Long paths: what requests that are sent ahead make of them, beside 16 exchanges of which one
 * follows another.
 *
 * @module
 */

import { burst, type Way } from "./burst.ts";
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

/** With jitter that is independent from one message to the next. */
const INDEPENDENT = 0.7;

/** With delays that last. What lasts a second makes it 1.32; the rest is room for chance. */
const LASTING = 1.4;

export const FAR_ROWS: readonly FarRow[] = [
  { name: "far-20-ms", path: both(exponential(0.01, 0.001)), promised: INDEPENDENT },
  { name: "far-100-ms", path: both(exponential(0.05, 0.005)), promised: INDEPENDENT },
  { name: "far-300-ms", path: both(exponential(0.15, 0.015)), promised: INDEPENDENT },
  { name: "far-jitter-20-ms", path: both(exponential(0.05, 0.02)) },
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

/** By default, without going on while congestion lasts, and one after another. */
const WAYS = {
  default: {},
  fixed: { samples: 32 },
  sequence: { samples: 16, inSequence: true },
} as const satisfies Record<string, Way>;

/** Runs a row with a seed in all ways. */
export async function inAllWays({ path }: FarRow, seed: number) {
  const [byDefault, fixed, sequence] = [
    await burst(seed, path, WAYS.default),
    await burst(seed, path, WAYS.fixed),
    await burst(seed, path, WAYS.sequence),
  ];
  return { default: byDefault, fixed, sequence };
}

/** The figures of a way over many seeds. */
export interface WayFigures {
  /** Seconds. */
  readonly medianError: number;
  readonly rmsError: number;
  /** Means. */
  readonly elapsed: number;
  readonly exchanges: number;
}

/** The figures of a row over many seeds. */
export interface FarFigures {
  readonly ways: Readonly<Record<keyof typeof WAYS, WayFigures>>;
  /** Runs whose bound does not contain the true offset, of all ways. */
  readonly outside: number;
  /** The part of runs that went on because congestion lasted. */
  readonly prolonged: number;
  /** Seconds of simulated time in all. */
  readonly elapsed: number;
}

/** Runs a row with many seeds. @param worlds For each seed, of what its world is made. */
export async function runFar(
  row: FarRow,
  worlds: readonly { readonly seed: number; readonly world: number }[],
): Promise<FarFigures> {
  const all: Awaited<ReturnType<typeof inAllWays>>[] = [];
  let outside = 0;
  for (const { seed, world } of worlds) {
    const ways = await inAllWays(row, world);
    all.push(ways);
    for (const { intersection: { error, bound } } of Object.values(ways)) {
      if (error <= bound) continue;
      outside++;
      console.error(`outside: deno task simulate --row ${row.name} --seed ${seed}`);
    }
  }
  const figuresOf = (way: keyof typeof WAYS): WayFigures => {
    const bursts = all.map((each) => each[way]);
    const errors = bursts.map(({ intersection }) => intersection.error).sort((a, b) => a - b);
    return {
      medianError: errors[Math.floor(errors.length / 2)]!,
      rmsError: Math.sqrt(mean(errors.map((error) => error ** 2))),
      elapsed: mean(bursts.map(({ elapsed }) => elapsed)),
      exchanges: mean(bursts.map(({ exchanges }) => exchanges)),
    };
  };
  const ways = {
    default: figuresOf("default"),
    fixed: figuresOf("fixed"),
    sequence: figuresOf("sequence"),
  };
  return {
    ways,
    outside,
    prolonged: mean(all.map((each) => Number(each.default.exchanges > WAYS.fixed.samples))),
    elapsed: all.length * Object.values(ways).reduce((sum, { elapsed }) => sum + elapsed, 0),
  };
}

function mean(figures: readonly number[]): number {
  return figures.reduce((a, b) => a + b) / figures.length;
}

/** Above the lines of the table. */
export const FAR_HEADING = "long paths: errors by default and with 32 exchanges, of those of 16 " +
  "in sequence; mean times\n\n" +
  "                     runs  by default     32 exchanges   runs      seconds             exchanges\n" +
  "row               outside  median   rms   median   rms   longer   def.   32  16 seq.    by default";

/** A line of the table. */
export function farLine(
  { name }: FarRow,
  { outside, prolonged, ways: { default: byDefault, fixed, sequence } }: FarFigures,
): string {
  const ratios = (way: WayFigures) =>
    (way.medianError / sequence.medianError).toFixed(2).padStart(8) +
    (way.rmsError / sequence.rmsError).toFixed(2).padStart(6);
  const seconds = [byDefault, fixed, sequence].map(({ elapsed }) => elapsed.toFixed(2).padStart(6));
  return name.padEnd(18) + String(outside).padStart(7) + ratios(byDefault) + ` ${ratios(fixed)}` +
    `${(100 * prolonged).toFixed(0)} %`.padStart(9) + " " + seconds.join("") +
    byDefault.exchanges.toFixed(1).padStart(16);
}

/** Is a row as promised? */
export function isAsPromised(
  { promised = Infinity }: FarRow,
  { outside, ways: { default: byDefault, sequence } }: FarFigures,
): boolean {
  return outside === 0 && byDefault.medianError <= promised * sequence.medianError;
}
