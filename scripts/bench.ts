/**
 * `deno task bench`: how exact and how fast tsync is on this machine, where
 * server and client share a clock and the true offset is therefore 0.
 *
 * Prints medians over {@linkcode RUNS} runs of separate processes, of the
 * compiled program too if there is one in `dist/`.
 *
 * @module
 */

import { compiled, type Program, run, ServeProcess, SOURCE } from "./program.ts";

const RUNS = 20;

console.log(`loopback, ${RUNS} runs of \`tsync sync\`, medians (least to greatest)\n`);
console.log(
  "program    |offset|                 error bound              0 outside  whole process",
);
await bench(SOURCE);
const program = compiled();
if (program === null) console.log("compiled   (none in dist/: deno task compile makes one)");
else await bench(program);

async function bench(program: Program): Promise<void> {
  await using server = await ServeProcess.start(program);
  const offsets: number[] = [];
  const bounds: number[] = [];
  const times: number[] = [];
  let outside = 0;
  for (let i = 0; i < RUNS; i++) {
    const start = performance.now();
    const { stdout, stderr } = await run(program, "sync", server.address, "--json");
    times.push(performance.now() - start);
    if (stderr !== "") throw new Error(stderr);
    const fix = JSON.parse(stdout);
    offsets.push(Math.abs(fix.offset) * 1e6);
    bounds.push(fix.error_bound * 1e6);
    if (Math.abs(fix.offset) > fix.error_bound) outside++;
  }
  const cells = [summary(offsets, "µs"), summary(bounds, "µs")].map((cell) => cell.padEnd(25));
  console.log(
    `${program.name.padEnd(11)}${cells.join("")}${String(outside).padEnd(11)}${
      summary(times, "ms")
    }`,
  );
}

function summary(numbers: number[], unit: string): string {
  const sorted = numbers.toSorted((a, b) => a - b);
  const at = (fraction: number) => sorted[Math.floor((sorted.length - 1) * fraction)]!.toFixed(1);
  return `${at(0.5)} ${unit} (${at(0)} to ${at(1)})`;
}
