/**
 * How a fix is shown to people and to programs. Pure: text out of values.
 *
 * @module
 */

import { bold, dim, green, red, yellow } from "@std/fmt/colors";
import type { Correction, Fix, ServerFigures, ServerReport, Update } from "../mod.ts";
import { nanoseconds, SECOND } from "../ntp/timestamp.ts";
import { PANIC_THRESHOLD_SECONDS } from "../sync/correction.ts";

const UNITS = [
  { name: "s", size: 1 },
  { name: "ms", size: 1e-3 },
  { name: "µs", size: 1e-6 },
  { name: "ns", size: 1e-9 },
] as const;

type Unit = typeof UNITS[number];

/** The unit in which a number of seconds has one to three digits before the point. */
function unitFor(seconds: number): Unit {
  return UNITS.find(({ size }) => Math.abs(seconds) >= size) ?? UNITS[3];
}

/** The decimals that show `digits` significant digits in `unit`, but nothing finer than a nanosecond. */
function decimalsFor(seconds: number, unit: Unit, digits: number): number {
  if (seconds === 0) return 0;
  const magnitude = Math.floor(Math.log10(Math.abs(seconds) / unit.size));
  const finest = Math.round(Math.log10(unit.size / 1e-9));
  return Math.min(Math.max(digits - 1 - magnitude, 0), finest);
}

/** `41.2 ms`: a duration with three significant digits, but nothing finer than a nanosecond. */
export function formatDuration(seconds: number): string {
  return rounded(seconds, 3, Math.round);
}

/** `-41.2 ms`: the same, always with a sign. */
export function formatSigned(seconds: number): string {
  return `${seconds < 0 ? "-" : "+"}${formatDuration(Math.abs(seconds))}`;
}

/** `± 27 µs`: a bound, rounded up. */
export function formatBound(seconds: number): string {
  return `± ${rounded(seconds, 2, Math.ceil)}`;
}

/**
 * `+1.28 ms ± 645 µs`, `+37.499996 s ± 25 µs`: an offset with only the digits that its bound leaves
 * it. The bound includes what rounding the offset loses, and is rounded up: what is shown holds.
 */
export function formatOffset(offset: number, bound: number): string {
  const unit = unitFor(Math.max(Math.abs(offset), bound));
  const decimals = decimalsFor(Math.max(bound, 1e-9), unit, 2);
  const shown = (offset / unit.size).toFixed(decimals);
  const lost = Math.abs(Number(shown) - offset / unit.size) * unit.size;
  return `${signed(shown)} ${unit.name} ${formatBound(bound + lost)}`;
}

/** Always with a sign: zero's is `+`. */
function signed(shown: string): string {
  const sign = shown.startsWith("-") && Number(shown) !== 0 ? "-" : "+";
  return sign + shown.replace("-", "");
}

function rounded(seconds: number, digits: number, round: (value: number) => number): string {
  const unit = unitFor(seconds);
  const decimals = decimalsFor(seconds, unit, digits);
  const scale = 10 ** decimals;
  // Without a double's last bits, which would round up a digit too far.
  const value = round(Number((seconds / unit.size * scale).toPrecision(12))) / scale;
  return `${value.toFixed(decimals)} ${unit.name}`;
}

/** `+12.35 ppm ± 0.04 ppm`: a frequency, given as a fraction, with the digits that its bound leaves. */
export function formatFrequency(frequency: number, bound: number): string {
  const ppm = { frequency: frequency * 1e6, bound: bound * 1e6 };
  const digits = ppm.bound > 0 ? Math.ceil(1 - Math.log10(ppm.bound)) : 3;
  const decimals = Math.min(Math.max(digits, 0), 3);
  const scale = 10 ** decimals;
  const shown = ppm.frequency.toFixed(decimals);
  const lost = Math.abs(Number(shown) - ppm.frequency);
  // Without a double's last bits, which would round up a digit too far.
  const most = Math.ceil(Number(((ppm.bound + lost) * scale).toPrecision(12))) / scale;
  return `${signed(shown)} ppm ± ${most.toFixed(decimals)} ppm`;
}

/** A poll for people: one line. */
export function describeUpdate(update: Update): string {
  const { fix, state, news, frequency, frequencyBound, interval, clock } = update;
  const kept = clock === null ? "" : `, kept clock ${formatOffset(clock.offset, clock.errorBound)}`;
  const parts = [
    formatInstant(fix.localTime),
    fix.offset === null ? `no fix${kept}` : formatOffset(fix.offset, fix.errorBound!),
    frequency === null ? "" : formatFrequency(frequency, frequencyBound!),
    state,
    NEWS[news],
    `next in ${formatDuration(interval)}`,
  ];
  return parts.filter((part) => part !== "").join("  ");
}

/** The news of a poll, in words. */
export const NEWS: Readonly<Record<Update["news"], string>> = {
  first: "",
  agrees: "",
  lost: "",
  frequency: "the frequency has changed",
  step: "the servers' clock was set or slewed",
  minority: "too few of the servers agree to be believed",
  disturbed: "the local clock was set, or the machine slept",
};

/** Whether the local clock is slow or fast, in words. */
export function verdict(offset: number, bound: number): string {
  if (Math.abs(offset) <= bound) return "no difference can be seen";
  const by = formatDuration(Math.abs(offset));
  return offset > 0 ? `the local clock is slow by ${by}` : `the local clock is fast by ${by}`;
}

/** `2026-11-22 10:15:03.123456 +01:00`: an instant in the local time zone, to the microsecond. */
export function formatInstant(instant: bigint): string {
  const { date, fraction } = split(instant);
  const minutes = -date.getTimezoneOffset();
  const local = new Date(date.getTime() + minutes * 60_000).toISOString();
  const zone = `${two(Math.abs(minutes) / 60)}:${two(Math.abs(minutes) % 60)}`;
  const sign = minutes < 0 ? "-" : "+";
  return `${local.slice(0, 10)} ${local.slice(11, 19)}.${fraction.slice(0, 6)} ${sign}${zone}`;
}

function two(number: number): string {
  return String(Math.trunc(number)).padStart(2, "0");
}

/** `2026-11-22T10:15:03.123456789Z` */
export function formatTimestamp(instant: bigint): string {
  const { date, fraction } = split(instant);
  return `${date.toISOString().slice(0, 19)}.${fraction}Z`;
}

/** Whole seconds, rounded down, and the nine digits of the fraction; before 1970 too. */
function split(instant: bigint): { date: Date; fraction: string } {
  const fraction = (instant % SECOND + SECOND) % SECOND;
  const date = new Date(Number((instant - fraction) / SECOND) * 1000);
  return { date, fraction: String(fraction).padStart(9, "0") };
}

const BARS = " ▁▂▃▄▅▆▇█";

/** Heights from 0, which is blank, to 1, as bars. */
export function sparkline(heights: readonly number[]): string {
  return heights.map((height) => BARS[Math.ceil(height * 8)]!).join("");
}

/** How numbers are spread from the least to the greatest, as bars. */
export function histogram(numbers: readonly number[], width = 12): string {
  const least = Math.min(...numbers);
  const range = Math.max(...numbers) - least;
  const counts = new Array<number>(width).fill(0);
  for (const number of numbers) {
    const bin = range === 0 ? 0 : Math.floor((number - least) / range * width);
    counts[Math.min(bin, width - 1)]!++;
  }
  const most = Math.max(...counts);
  return sparkline(counts.map((count) => count / most));
}

/** A fix for people: a few aligned lines. */
export function describeFix(fix: Fix): string {
  const rows: [string, string][] = [];
  const [only] = fix.servers;
  if (fix.servers.length === 1 && only?.figures) {
    const { figures } = only;
    rows.push(["server", serverLine(only)]);
    rows.push(["delay", delayLine(figures)]);
  } else {
    for (const server of fix.servers) {
      rows.push(["server", serverLine(server)], ...tableRows(server));
    }
  }
  if (fix.offset !== null && fix.errorBound !== null) {
    const offset = formatOffset(fix.offset, fix.errorBound);
    rows.push(["offset", `${bold(offset)}  ${verdict(fix.offset, fix.errorBound)}`]);
    rows.push(["local time", formatInstant(fix.localTime)]);
    rows.push([
      fix.servers.length === 1 ? "server time" : "true time",
      formatInstant(fix.localTime + nanoseconds(fix.offset)),
    ]);
  }
  return rows.map(([label, text]) => `${dim(label.padEnd(12))}${text}`.trimEnd()).join("\n");
}

export function serverLine({ name, address, transport, sameAs, figures }: ServerReport): string {
  const source = figures === null ? "" : `, stratum ${figures.stratum} (${figures.referenceId})`;
  const same = sameAs === null ? "" : `, the same as ${sameAs}`;
  return `${bold(name)}  ${transport} ${address ?? ""}${source}${same}`.trimEnd();
}

/** A warning for each server that was named twice. */
export function describeDuplicates({ servers }: Fix): string[] {
  return servers.filter(({ sameAs }) => sameAs !== null).map(({ name, sameAs, address }) =>
    `warning: ${name} is the same server as ${sameAs} (${address}): together they have one vote`
  );
}

function delayLine({ exchanges }: ServerFigures): string {
  const delays = exchanges.map(({ delay }) => delay);
  const least = formatDuration(Math.min(...delays));
  if (delays.length === 1) return `${least} (1 sample)`;
  const most = formatDuration(Math.max(...delays));
  return `${least} best of ${delays.length}  ${histogram(delays)}  ${most} worst`;
}

const STATUS_COLORS: Readonly<Record<ServerReport["status"], (text: string) => string>> = {
  truechimer: green,
  falseticker: red,
  unreachable: yellow,
  invalid: yellow,
};

function tableRows(server: ServerReport): [string, string][] {
  const status = STATUS_COLORS[server.status](server.status);
  const { figures } = server;
  if (figures === null) return [["", `${status}: ${server.error}`]];
  const offset = formatOffset(figures.offset, figures.errorBound);
  return [
    ["", `${status}  ${offset}`],
    ["", delayLine(figures)],
  ];
}

/** Why there is no fix: sentences. */
export function describeFailure(fix: Fix): string[] {
  const failures = fix.servers.flatMap(({ error }) => error === null ? [] : [error]);
  const opinions = fix.servers.filter(({ figures }) => figures !== null);
  if (opinions.length === 0) return failures;
  const said = opinions.map(({ name, figures }) =>
    `${name} says ${formatOffset(figures!.offset, figures!.errorBound)}`
  );
  return [...failures, `no majority of the servers agrees: ${said.join("; ")}`];
}

/** What was done to the system clock, or why nothing was. */
export function describeCorrection({ action, offset }: Correction): string {
  const by = formatSigned(offset);
  switch (action) {
    case "none":
      return "the system clock is left alone: no difference can be seen";
    case "slew":
      return `the system clock is slewed by ${by}`;
    case "step":
      return `the system clock was stepped by ${by}`;
    case "doubted":
      return `the system clock is left alone: too few of the servers that were asked agree that it ` +
        `is off by ${by}; most of them must`;
    case "refused":
      return `the system clock is left alone: it was right before, and ${by} is more than the ` +
        `${PANIC_THRESHOLD_SECONDS} s that are credible; starting tsync again sets it`;
  }
}

/** The most seconds that the system clock can be off after a fix and its correction. */
export function worstOfFix(fix: Fix, correction: Correction | null): number | null {
  if (!fix.synchronised) return null;
  return (correction?.action === "step" ? 0 : Math.abs(fix.offset!)) + fix.errorBound!;
}

/** As {@linkcode worstOfFix}, or without a fix by the kept clock; `null` if it is not known. */
export function worstOf({ fix, correction, clock }: Update): number | null {
  if (fix.synchronised) return worstOfFix(fix, correction);
  return clock === null ? null : Math.abs(clock.offset) + clock.errorBound;
}

/** The complaint if the system clock can be off by more than `--max-offset` allows. */
export function tooLarge(worst: number | null, maxOffset: number | undefined): string | null {
  if (maxOffset === undefined || worst === null || worst <= maxOffset) return null;
  return `the local clock may be off by ${formatDuration(worst)}, more than the ` +
    `${formatDuration(maxOffset)} allowed by --max-offset`;
}

/** A fix for programs: one line of JSON. The names and units are part of the contract. */
export function fixToJson(fix: Fix): string {
  return encode(fixMembers(fix));
}

/** A poll for programs: the same, with the state and the frequency (ppm). */
export function updateToJson(update: Update): string {
  const { fix, state, frequency, frequencyBound, interval, clock } = update;
  return encode({
    ...fixMembers(fix),
    state,
    frequency: frequency === null ? null : frequency * 1e6,
    frequency_bound: frequencyBound === null ? null : frequencyBound * 1e6,
    interval,
    clock: clock && {
      offset: clock.offset,
      error_bound: clock.errorBound,
      frequency: clock.frequency * 1e6,
      frequency_bound: clock.frequencyBound * 1e6,
    },
  });
}

function fixMembers(fix: Fix) {
  return {
    time: formatTimestamp(fix.localTime + nanoseconds(fix.offset ?? 0)),
    offset: fix.offset,
    error_bound: fix.errorBound,
    delay: fix.delay,
    leap: fix.leap,
    synchronised: fix.synchronised,
    servers: fix.servers.map(({ name, address, transport, status, figures, error }) => ({
      name,
      address,
      transport,
      status,
      offset: figures?.offset ?? null,
      error_bound: figures?.errorBound ?? null,
      delay: figures?.delay ?? null,
      jitter: figures?.jitter ?? null,
      samples: figures?.exchanges.length ?? null,
      stratum: figures?.stratum ?? null,
      reference_id: figures?.referenceId ?? null,
      root_delay: figures?.rootDelay ?? null,
      root_dispersion: figures?.rootDispersion ?? null,
      timestamps: figures?.timestamps ?? null,
      error,
    })),
  };
}

/** `JSON.stringify`, with numbers as decimals to nine places and never as `1e-7`. */
function encode(value: unknown): string {
  if (typeof value === "number") {
    return value.toFixed(9).replace(/\.?0+$/, "").replace(/^-0$/, "0");
  }
  if (Array.isArray(value)) return `[${value.map(encode).join(",")}]`;
  if (typeof value === "object" && value !== null) {
    const members = Object.entries(value).map(([name, member]) => `"${name}":${encode(member)}`);
    return `{${members.join(",")}}`;
  }
  return JSON.stringify(value);
}
