/**
 * What `tsync sync --watch` shows in a terminal. Pure: lines out of values.
 *
 * @module
 */

import { bold, dim, green, yellow } from "@std/fmt/colors";
import type { State, SyncedTime, Update } from "../mod.ts";
import {
  describeFailure,
  formatBound,
  formatDuration,
  formatFrequency,
  formatInstant,
  formatOffset,
  NEWS,
  serverLine,
  verdict,
} from "./report.ts";

/** What is shown. */
export interface PanelState {
  /** The last poll; `null` before the first. */
  readonly update: Update | null;
  /** What was done with the system clock, in words. */
  readonly note: string | null;
  /** What the kept clock shows now; `null` if it is not valid. */
  readonly now: SyncedTime | null;
  /** Seconds until the next poll. */
  readonly left: number;
  /** Offsets of the polls so far, in seconds. */
  readonly history: readonly number[];
}

/** Columns of the labels. */
const LABEL = 13;

const COLORS: Readonly<Record<State, (text: string) => string>> = {
  synchronising: yellow,
  synchronised: green,
  holdover: yellow,
};

/** The panel's lines, none wider than so many columns. */
export function panel({ update, note, now, left, history }: PanelState, columns: number): string[] {
  const rows: [string, string, ((text: string) => string)?][] = [];
  const state = update?.state ?? "synchronising";
  rows.push(["state", state, COLORS[state]]);
  for (const server of update?.fix.servers ?? []) {
    rows.push(["server", server.error ?? plain(serverLine(server))]);
  }
  if (now === null) rows.push(["server time", "not known"]);
  else {
    const [early, late] = [now.time - now.earliest, now.latest - now.time];
    const bound = Number(early > late ? early : late) / 1e9;
    const instant = formatInstant(now.time);
    rows.push(["server time", `${instant}  ${formatBound(bound)}`, bold]);
  }
  const fix = update?.fix;
  if (fix !== undefined && fix.offset !== null) {
    const offset = formatOffset(fix.offset, fix.errorBound!);
    rows.push(["offset", `${offset}  ${verdict(fix.offset, fix.errorBound!)}`]);
    if (fix.delay !== null) rows.push(["delay", formatDuration(fix.delay)]);
  } else if (fix !== undefined && fix.servers.every(({ error }) => error === null)) {
    for (const sentence of describeFailure(fix)) rows.push(["", sentence, yellow]);
  }
  if (update !== null && update.frequency !== null) {
    rows.push(["frequency", formatFrequency(update.frequency, update.frequencyBound!)]);
    if (NEWS[update.news] !== "") rows.push(["", NEWS[update.news], yellow]);
  }
  if (note !== null) rows.push(["system clock", note.replace(/^the system clock /, "")]);
  const space = columns - LABEL;
  if (history.length > 1 && space >= 8) {
    const shown = history.slice(-Math.min(space, HISTORY));
    const [least, most] = [Math.min(...shown), Math.max(...shown)];
    rows.push(["history", line(shown)]);
    rows.push(["", `${formatSigned(least)} to ${formatSigned(most)}, ${shown.length} polls`, dim]);
  }
  if (update !== null) rows.push(["next poll", `in ${Math.max(0, Math.ceil(left))} s`]);
  return rows.map(([label, text, color = (text: string) => text]) => {
    const head = label.padEnd(LABEL).slice(0, columns);
    return dim(head) + color(fitted(text, space));
  });
}

/** What is cut off is seen to be. */
function fitted(text: string, space: number): string {
  if (text.length <= space) return text;
  return space < 1 ? "" : `${text.slice(0, space - 1)}…`;
}

/** Polls that are drawn at most. */
const HISTORY = 64;

const BARS = "▁▂▃▄▅▆▇█";

/** Numbers over time, as bars between the least and the greatest. */
function line(numbers: readonly number[]): string {
  const least = Math.min(...numbers);
  const range = Math.max(...numbers) - least;
  return numbers.map((number) =>
    BARS[range === 0 ? 3 : Math.min(7, Math.floor((number - least) / range * 8))]!
  ).join("");
}

function formatSigned(seconds: number): string {
  return `${seconds < 0 ? "-" : "+"}${formatDuration(Math.abs(seconds))}`;
}

/** Without colours. */
function plain(text: string): string {
  // deno-lint-ignore no-control-regex
  return text.replaceAll(/\x1b\[[0-9;]*m/g, "");
}
