/**
 * What came of `run.sh clock`: a row for each folder of results named on the command line, from its
 * `truth.tsv` (the host's clock in seconds, guest minus host in µs, and by how much that may be
 * wrong in µs; or the host's clock and the name of an event).
 *
 * @module
 */

/** Seconds after the start from which a clock counts as kept. */
const SETTLING_SECONDS = 60;

interface Reading {
  readonly time: number;
  /** Guest minus host in microseconds. */
  readonly offset: number;
  readonly error: number;
}

function read(file: string): { readings: Reading[]; events: Map<string, number> } {
  const readings: Reading[] = [];
  const events = new Map<string, number>();
  for (const line of Deno.readTextFileSync(file).trimEnd().split("\n")) {
    const [time, offset, error] = line.split("\t");
    if (error === undefined) events.set(offset!, Number(time));
    else readings.push({ time: Number(time), offset: Number(offset), error: Number(error) });
  }
  return { readings, events };
}

function greatest(readings: readonly Reading[]): number {
  return Math.max(...readings.map(({ offset }) => Math.abs(offset)));
}

function rms(readings: readonly Reading[]): number {
  return Math.sqrt(readings.reduce((sum, { offset }) => sum + offset ** 2, 0) / readings.length);
}

/** By how many ppm the guest's clock gains, from the first reading to the last. */
function frequency(readings: readonly Reading[]): number {
  const first = readings[0]!, last = readings.at(-1)!;
  return (last.offset - first.offset) / (last.time - first.time);
}

/** Seconds from the start until the offset stays below 1 ms. */
function settled(readings: readonly Reading[], start: number): string {
  const last = readings.findLastIndex(({ offset }) => Math.abs(offset) >= 1000);
  return last === readings.length - 1 ? "never" : (readings[last + 1]!.time - start).toFixed(0);
}

const rows = [[
  "run",
  "RMS µs",
  "greatest µs",
  "within 1 ms after s",
  "after stop: greatest µs",
  "last minute ppm",
  "truth ± µs",
]];
for (const folder of Deno.args) {
  const { readings, events } = read(`${folder}/truth.tsv`);
  const between = (from: number, to: number) =>
    readings.filter(({ time }) => time >= from && time < to);
  const start = events.get("start")!, end = events.get("end")!;
  const stop = events.get("stop") ?? events.get("kill")!;
  const kept = between(start, events.get("kept") ?? stop);
  const counted = kept.filter(({ time }) => time >= start + SETTLING_SECONDS);
  rows.push([
    folder.replace(/.*\//, ""),
    counted.length === 0 ? "" : rms(counted).toFixed(1),
    counted.length === 0 ? "" : greatest(counted).toFixed(1),
    settled(kept, start),
    greatest(between(stop, end)).toFixed(1),
    frequency(between(end - 60, end)).toFixed(3),
    Math.max(...readings.map(({ error }) => error)).toFixed(1),
  ]);
}
const widths = rows[0]!.map((_, i) => Math.max(...rows.map((row) => row[i]!.length)));
for (const row of rows) {
  console.log(
    row.map((cell, i) => i ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!)).join("  "),
  );
}
