/**
 * The time to a fix over long paths, and its error, beside ntpdig over the same path: two network
 * namespaces joined by a program that delays what passes. Both read one clock, so the true offset
 * is 0. A part of `deno task bench`; `deno run -A scripts/bench/far.ts` prints this part alone.
 *
 * @module
 */

import { FAR_ADDRESS, farPathObstacle, withFarPath, within } from "../../tests/far_path.ts";
import { commandLine, compiled, type Program, ServeProcess, SOURCE } from "../program.ts";

const RUNS = 10;

/** Milliseconds there and back. */
const ROUND_TRIPS = [20, 100, 300];

/** Milliseconds of jitter each way, as parts of the round trip. */
const JITTERS = [0, 1 / 20];

/** What came of a tool's runs. */
interface Runs {
  /** Seconds, the whole process. */
  readonly times: number[];
  /** Milliseconds. */
  readonly errors: number[];
  readonly bounds: number[];
  readonly samples: number[];
}

/** Prints a table. */
export async function benchFar(program: Program): Promise<void> {
  const obstacle = await farPathObstacle();
  if (obstacle !== null) return console.log(`\nlong paths: not tried: ${obstacle}`);
  console.log(
    `\nlong paths, ${RUNS} runs, medians (least to greatest)\n\n` +
      "round trip, jitter   tool                     whole process              |offset|                     bound       exchanges",
  );
  for (const roundTrip of ROUND_TRIPS) {
    for (const part of JITTERS) await benchPath(program, roundTrip, part * roundTrip);
  }
}

async function benchPath(program: Program, roundTrip: number, jitter: number): Promise<void> {
  const results = await withFarPath({ delay: roundTrip / 2, jitter }, async (path) => {
    const serving = ["--host", FAR_ADDRESS, "--udp-port", "123"];
    await using _ = await ServeProcess.start(within(path.server, program), serving);
    const asking = within(path.client, program);
    const tsync = (...args: string[]): [string, string[]] => [
      asking.executable,
      commandLine(asking, ["sync", FAR_ADDRESS, "--json", ...args]),
    ];
    const tools: Record<string, [string, string[]]> = {
      "tsync sync": tsync(),
      "tsync sync --samples 16": tsync("--samples", "16"),
      "ntpdig": ["ip", ["netns", "exec", path.client, "ntpdig", "-j", FAR_ADDRESS]],
    };
    const results = new Map<string, Runs>();
    for (let i = 0; i < RUNS; i++) {
      for (const [name, command] of Object.entries(tools)) {
        const runs = results.get(name) ?? { times: [], errors: [], bounds: [], samples: [] };
        if (await runOnce(command, runs)) results.set(name, runs);
      }
    }
    return results;
  });
  const where = `${roundTrip} ms, ${jitter} ms`;
  for (const [name, { times, errors, bounds, samples }] of results) {
    console.log(
      where.padEnd(21) + name.padEnd(25) + summary(times, "s", 2).padEnd(27) +
        summary(errors, "ms", 3).padEnd(29) + `${at(bounds, 0.5).toFixed(1)} ms`.padEnd(12) +
        summary(samples, "", 0),
    );
  }
}

/** @returns Is the tool here, and has it made a fix? */
async function runOnce([command, args]: [string, string[]], runs: Runs): Promise<boolean> {
  const start = performance.now();
  const { success, stdout } = await new Deno.Command(command, { args }).output();
  const time = performance.now() - start;
  if (!success) return false;
  const fix = JSON.parse(new TextDecoder().decode(stdout));
  runs.times.push(time / 1000);
  runs.errors.push(Math.abs(fix.offset) * 1000);
  runs.bounds.push((fix.error_bound ?? fix.precision) * 1000);
  runs.samples.push(fix.servers?.[0].samples ?? 1);
  return true;
}

function summary(numbers: number[], unit: string, decimals: number): string {
  const [median, least, most] = [0.5, 0, 1].map((part) => at(numbers, part).toFixed(decimals));
  return `${median} ${unit} (${least} to ${most})`.replace("  ", " ");
}

/** Of numbers in order, the one that so large a part is less than. */
function at(numbers: readonly number[], part: number): number {
  return numbers.toSorted((a, b) => a - b)[Math.floor((numbers.length - 1) * part)]!;
}

if (import.meta.main) await benchFar(compiled() ?? SOURCE);
