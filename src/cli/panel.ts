/**
 * What `tsync sync --watch` shows in a terminal. Pure: lines out of values.
 *
 * @module
 */

import type { ClockOffset } from "../clock/synced_clock.ts";
import { bold, dim, green, stripAnsiCode, yellow } from "@std/fmt/colors";
import type { State, SyncedTime, Update } from "../mod.ts";
import { CONTESTED } from "./journal.ts";
import {
  describeFailure,
  formatBound,
  formatDuration,
  formatFrequency,
  formatInstant,
  formatOffset,
  formatSigned,
  NEWS,
  serverLine,
  sparkline,
  verdict,
} from "./report.ts";

/** Another program that is told the time. */
export interface Feed {
  readonly label: string;
  /** How that goes, in words. */
  readonly status: string;
}

export interface PanelState {
  /** The last poll; `null` before the first. */
  readonly update: Update | null;
  /** What was done to the system clock, in words. */
  readonly note: string | null;
  /** Who else is told the time. */
  readonly feeds: readonly Feed[];
  /** The kept clock's time now; `null` if it is not valid. */
  readonly now: SyncedTime | null;
  /** How far the system clock is from the kept one now; `null` if that is not valid. */
  readonly clock: ClockOffset | null;
  /** Seconds until the next poll. */
  readonly left: number;
  /** Offsets of the polls so far, in seconds. */
  readonly history: readonly number[];
}

/** Columns of the labels. */
const LABEL = 13;

/** The most polls that the history shows. */
export const MAX_HISTORY = 64;

const COLORS: Readonly<Record<State, (text: string) => string>> = {
  synchronising: yellow,
  synchronised: green,
  holdover: yellow,
};

/** The panel's lines, none wider than `columns`. */
export function panel(state: PanelState, columns: number): string[] {
  const { update, note, feeds, now, clock, left, history } = state;
  const rows: [string, string, ((text: string) => string)?][] = [];
  const kept = update?.state ?? "synchronising";
  rows.push(["state", kept, COLORS[kept]]);
  for (const server of update?.fix.servers ?? []) {
    rows.push(["server", server.error ?? stripAnsiCode(serverLine(server))]);
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
  } else {
    if (clock !== null) {
      rows.push(["offset", `${formatOffset(clock.offset, clock.errorBound)}  by the kept clock`]);
    }
    if (fix !== undefined && fix.servers.every(({ error }) => error === null)) {
      for (const sentence of describeFailure(fix)) rows.push(["", sentence, yellow]);
    }
  }
  if (update !== null && update.frequency !== null) {
    rows.push(["frequency", formatFrequency(update.frequency, update.frequencyBound!)]);
    if (NEWS[update.news] !== "") rows.push(["", NEWS[update.news], yellow]);
  }
  if (note !== null) rows.push(["system clock", note.replace(/^the system clock /, "")]);
  if (update?.isContested) rows.push(["", CONTESTED.replace(/^warning: /, ""), yellow]);
  for (const { label, status } of feeds) rows.push([label, status]);
  const space = columns - LABEL;
  if (history.length > 1 && space >= 8) {
    const shown = history.slice(-Math.min(space, MAX_HISTORY));
    const [least, most] = [Math.min(...shown), Math.max(...shown)];
    const range = most - least;
    const heights = shown.map((each) =>
      range === 0 ? 0.5 : Math.max((each - least) / range, 1 / 8)
    );
    rows.push(["history", sparkline(heights)]);
    rows.push(["", `${formatSigned(least)} to ${formatSigned(most)}, ${shown.length} polls`, dim]);
  }
  if (update !== null) rows.push(["next poll", `in ${Math.max(0, Math.ceil(left))} s`]);
  return rows.map(([label, text, color = (text: string) => text]) => {
    const head = label.padEnd(LABEL).slice(0, columns);
    return dim(head) + color(fitted(text, space));
  });
}

/** Cuts a text off, with an ellipsis, where it does not fit. */
function fitted(text: string, space: number): string {
  if (text.length <= space) return text;
  return space < 1 ? "" : `${text.slice(0, space - 1)}…`;
}
