/**
 * What came of `run.sh clock`: a row for each folder of results named on the command line, from its
 * `truth.tsv` (the host's clock in seconds, guest minus host in µs, and by how much that may be
 * wrong in µs; or the host's clock and the name of an event).
 *
 * @module
 */

/** Seconds after the start from which a clock counts as kept. */
const SETTLING_SECONDS = 60;

/** Seconds before the end in which it is at its best. */
const LATE_SECONDS = 300;

/** Seconds at the end over which the frequency is taken: 0.2 µs in these is 0.02 ppm. */
const END_SECONDS = 15;

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

/** Root mean square, and the greatest. */
function size(readings: readonly Reading[]): string {
  if (readings.length === 0) return "";
  const square = readings.reduce((sum, { offset }) => sum + offset ** 2, 0) / readings.length;
  return `${Math.sqrt(square).toFixed(1)}, ${greatest(readings).toFixed(1)}`;
}

/** By how many ppm the guest's clock gains, from the first reading to the last. */
function frequency(readings: readonly Reading[]): number {
  const first = readings[0]!, last = readings.at(-1)!;
  return (last.offset - first.offset) / (last.time - first.time);
}

/** Seconds from the start until the offset is within 1 ms: for the first time, and for good. */
function settled(readings: readonly Reading[], start: number): string {
  const isRight = ({ offset }: Reading) => Math.abs(offset) < 1000;
  const after = (reading: Reading | undefined) =>
    reading === undefined ? "never" : (reading.time - start).toFixed(0);
  const lastWrong = readings.findLastIndex((reading) => !isRight(reading));
  return `${after(readings.find(isRight))}, ${after(readings[lastWrong + 1])}`;
}

const rows = [[
  "run",
  "after 1 min: RMS, greatest µs",
  "last 5 min: RMS, greatest µs",
  "within 1 ms after s: first, for good",
  "after stop: greatest µs",
  "at the end ppm",
  "truth ± µs",
]];
for (const folder of Deno.args) {
  const { readings, events } = read(`${folder}/truth.tsv`);
  const between = (from: number, to: number) =>
    readings.filter(({ time }) => time >= from && time < to);
  const start = events.get("start")!, end = events.get("end")!;
  // Kept by a program until it is killed, or until it is asked for its state and stopped.
  const stop = events.get("stop") ?? events.get("kill")!;
  const kept = between(start, events.get("kept") ?? stop);
  const counted = kept.filter(({ time }) => time >= start + SETTLING_SECONDS);
  rows.push([
    folder.replace(/.*\//, ""),
    size(counted),
    size(counted.filter(({ time }) => time >= kept.at(-1)!.time - LATE_SECONDS)),
    settled(kept, start),
    greatest(between(stop, end)).toFixed(1),
    frequency(between(end - END_SECONDS, end)).toFixed(3),
    Math.max(...readings.map(({ error }) => error)).toFixed(1),
  ]);
}
const widths = rows[0]!.map((_, i) => Math.max(...rows.map((row) => row[i]!.length)));
for (const row of rows) {
  console.log(
    row.map((cell, i) => i ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!)).join("  "),
  );
}
