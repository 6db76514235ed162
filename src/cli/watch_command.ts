/**
 * `tsync sync --watch`.
 *
 * @module
 */

import { withHints } from "./hints.ts";
import { setColorEnabled } from "@std/fmt/colors";
import type { Corrector, MessageKey, Update } from "../mod.ts";
import { Watch } from "../sync/watch.ts";
import type { SyncArguments } from "./command_line.ts";
import { serviceManager } from "./environment.ts";
import { EXIT } from "./flags.ts";
import { Journal } from "./journal.ts";
import { type Feed, MAX_HISTORY, panel } from "./panel.ts";
import {
  describeCorrection,
  describeFix,
  describeUpdate,
  tooLarge,
  updateToJson,
  worstOf,
} from "./report.ts";
import { isDrawable, print, suspend } from "./terminal.ts";

/** Keeps time, and shows it, until a signal comes. @returns The exit status. */
export async function runWatch(
  args: SyncArguments,
  ca: string | undefined,
  key: MessageKey | undefined,
  corrector: Corrector | null,
): Promise<number> {
  const { json, quiet } = args;
  const interrupt = new AbortController();
  const onSignal = () => interrupt.abort();
  const signals = ["SIGINT", "SIGTERM"] as const;
  for (const signal of signals) Deno.addSignalListener(signal, onSignal);
  const isTerminal = isDrawable(Deno.stdout);
  setColorEnabled(isTerminal);
  const watch = new Watch({
    ...args.options,
    ca,
    key,
    signal: interrupt.signal,
    corrector: corrector ?? undefined,
  });
  const journal = new Journal(corrector !== null);
  let screen: Screen | null = null;
  const tell = (sentence: string, isError: boolean) => {
    if (screen === null && (isError || !quiet)) console.error(`tsync: ${sentence}`);
  };
  const feed = args.refclock === undefined
    ? null
    : new (await import("./refclock.ts")).RefclockFeed(args.refclock, watch.clock, tell);
  const bound = args.clockbound === undefined
    ? null
    : new (await import("./clockbound.ts")).ClockBoundFeed(args.clockbound, watch.clock, tell);
  const feeds = [feed, bound].filter((each) => each !== null);
  const site = args.http === undefined
    ? null
    : await (await import("./watch_http.ts")).openSite(args.http, args, watch.clock, tell);
  // With HTTP, that is what /healthz is for.
  const maxOffset = site === null ? args.maxOffset : undefined;
  if (isTerminal && !json && !quiet) screen = new Screen(watch, feeds);
  /** Ctrl-Z: the shell has the terminal until it says `fg`. */
  const onStop = () => {
    screen?.end();
    if (suspend()) screen?.begin();
    else {
      screen = null;
      console.error(
        "tsync: cannot stop for Ctrl-Z, since libc may not be loaded; " +
          "printing a line per poll instead, until Ctrl-C",
      );
    }
  };
  let last: Update | null = null;
  const manager = await serviceManager((sentence) => console.error(`tsync: ${sentence}`));
  try {
    if (screen !== null) Deno.addSignalListener("SIGTSTP", onStop);
    screen?.begin();
    for await (const { fix, ...rest } of watch) {
      const update = { ...rest, fix: withHints(fix) };
      if (update.fix.synchronised) last = update;
      for (const each of feeds) each.update(update);
      site?.update(update);
      const { correction } = update;
      const errors = journal.errors(update);
      const notes = journal.notes(update);
      if (screen !== null) screen.show(update, correction && describeCorrection(correction));
      else if (json || !quiet) {
        const line = json ? updateToJson(update) : describeUpdate(update);
        if (!print(line)) return EXIT.ok;
      }
      const worst = worstOf(update);
      const isUnknown = worst === null && maxOffset !== undefined;
      const isRefused = correction?.action === "refused";
      if (isUnknown || isRefused) screen?.end();
      if (screen === null || isUnknown || isRefused) {
        for (const sentence of errors) console.error(`tsync: ${sentence}`);
      }
      if (isUnknown || isRefused) return EXIT.failure;
      for (const note of screen === null && !quiet ? notes : []) console.error(`tsync: ${note}`);
      const sentence = tooLarge(worst, maxOffset);
      if (sentence === null) {
        if (fix.synchronised && tooLarge(worst, args.maxOffset) === null) manager?.ready();
        continue;
      }
      screen?.end();
      console.error(`tsync: ${sentence}`);
      return EXIT.offsetTooLarge;
    }
  } finally {
    for (const each of feeds) each.stop();
    site?.close();
    manager?.stopping();
    screen?.end();
    for (const signal of signals) Deno.removeSignalListener(signal, onSignal);
    Deno.removeSignalListener("SIGTSTP", onStop);
  }
  if (screen !== null && last !== null) print(describeFix(last.fix));
  if (screen !== null && feed?.suggestion) console.error(`tsync: ${feed.suggestion}`);
  if (last !== null) return EXIT.ok;
  console.error("tsync: interrupted before a fix");
  return EXIT.interrupted;
}

/** Between two redraws of the panel. */
const FRAME_MS = 100;

/** The panel, on the terminal's alternate screen. */
class Screen {
  readonly #watch: Watch;
  readonly #feeds: readonly Feed[];
  #timer: ReturnType<typeof setInterval> | null = null;
  readonly #history: number[] = [];
  #update: Update | null = null;
  #note: string | null = null;
  /** When the next poll is due: `performance.now()`. */
  #next = 0;

  constructor(watch: Watch, feeds: readonly Feed[]) {
    this.#watch = watch;
    this.#feeds = feeds;
  }

  /** Switches to the alternate screen and hides the cursor. */
  begin(): void {
    this.#timer = setInterval(() => this.#draw(), FRAME_MS);
    this.#write("\x1b[?1049h\x1b[?25l");
    this.#draw();
  }

  show(update: Update, note: string | null): void {
    this.#update = update;
    this.#note = note;
    this.#next = performance.now() + update.interval * 1000;
    const { offset } = update.fix;
    if (offset !== null) this.#history.push(offset);
    if (this.#history.length > MAX_HISTORY) this.#history.shift();
    this.#draw();
  }

  /** Restores the terminal. */
  end(): void {
    if (this.#timer === null) return;
    clearInterval(this.#timer);
    this.#timer = null;
    this.#write("\x1b[?25h\x1b[?1049l");
  }

  #draw(): void {
    let size = { columns: 80, rows: 24 };
    try {
      size = Deno.consoleSize();
    } catch {
      // The terminal does not tell its size.
    }
    const lines = panel({
      update: this.#update,
      note: this.#note,
      feeds: this.#feeds,
      now: this.#watch.clock.now(true),
      clock: this.#watch.clock.systemOffset(),
      left: (this.#next - performance.now()) / 1000,
      history: this.#history,
    }, size.columns);
    const picture = lines.slice(0, size.rows).map((line) => `${line}\x1b[K`).join("\r\n");
    this.#write(`\x1b[H${picture}\x1b[J`);
  }

  #write(text: string): void {
    try {
      Deno.stdout.writeSync(new TextEncoder().encode(text));
    } catch {
      // The terminal is gone; a signal will say so.
    }
  }
}
