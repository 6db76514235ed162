/**
 * `tsync sync`.
 *
 * @module
 */

import { withHints } from "./hints.ts";
import { setColorEnabled } from "@std/fmt/colors";
import { systemTimers } from "../clock/system_clock.ts";
import type { ClockSetter, Fix } from "../mod.ts";
import { openClockSetter } from "../clock/clock_setter.ts";
import { Corrector } from "../sync/correction.ts";
import { sync } from "../sync/sync.ts";
import { parseServerAddress } from "../net/address.ts";
import { trustOnly } from "../net/deno/tls.ts";
import { UsageError } from "./args.ts";
import type { SyncArguments } from "./command_line.ts";
import { proxyOfEnvironment } from "./environment.ts";
import { mayReadFiles, readFile } from "./files.ts";
import { EXIT } from "./flags.ts";
import { isDrawable, print } from "./terminal.ts";
import {
  describeCorrection,
  describeDuplicates,
  describeFailure,
  describeFix,
  fixToJson,
  tooLarge,
  worstOfFix,
} from "./report.ts";

/**
 * Takes a fix and shows it, or keeps time.
 *
 * @param openSetter Opens the clock that `--set` sets. Default: this machine's.
 * @returns The exit status.
 */
export async function runSync(
  args: SyncArguments,
  openSetter: () => ClockSetter = openClockSetter,
): Promise<number> {
  const servers = args.options.servers.map((server) => {
    try {
      return parseServerAddress(server);
    } catch (error) {
      throw new UsageError((error as Error).message, "sync");
    }
  });
  const { timestamps, proxy } = args.options;
  const isTls = servers.some(({ transport }) => transport === "tls");
  if (proxy !== undefined && !isTls) throw new UsageError("--proxy needs a tls:// server", "sync");
  const options = proxy === undefined && isTls
    ? { ...args.options, ...proxyOfEnvironment() }
    : args.options;
  if (timestamps === "kernel" && servers.every(({ transport }) => transport === "tls")) {
    throw new UsageError(
      "cannot use --timestamps kernel with TLS, whose messages the kernel does not see: " +
        "name a tcp:// server, or leave it out",
      "sync",
    );
  }
  const key = args.key && (await import("./key_file.ts")).readKey(args.key);
  const ca = authorities(args.ca, isTls);
  const setter = args.set && openSetter();
  if (setter?.isKeptByOther && !args.quiet) console.error(`tsync: ${OTHERS}`);
  const corrector = setter && new Corrector(setter, args.set!.stepThreshold);
  if (args.watch) {
    const { runWatch } = await import("./watch_command.ts");
    return await runWatch({ ...args, options }, ca, key, corrector);
  }
  const interrupt = new AbortController();
  const onSignal = () => interrupt.abort();
  Deno.addSignalListener("SIGINT", onSignal);
  const progress = new Progress(args.quiet);
  try {
    const fix = await sync({
      ...options,
      ca,
      key,
      signal: interrupt.signal,
      onProgress: (done, all) => progress.update(done, all),
    });
    progress.end();
    return show(withHints(fix), args, corrector);
  } catch (error) {
    progress.end();
    if (!interrupt.signal.aborted) throw error;
    console.error("tsync: interrupted before a fix");
    return EXIT.interrupted;
  } finally {
    Deno.removeSignalListener("SIGINT", onSignal);
  }
}

/** Settles which authorities to trust for TLS. @returns Those that `--ca` names, as PEM text. */
function authorities(file: string | undefined, needed: boolean): string | undefined {
  if (file !== undefined && !needed) throw new UsageError("--ca needs a tls:// server", "sync");
  mayReadFiles(file !== undefined);
  if (needed) trustOnly(file === undefined ? "system" : "named");
  if (file === undefined) return undefined;
  const ca = readFile("--ca", file);
  mayReadFiles(false);
  if (ca.includes("-----BEGIN CERTIFICATE-----")) return ca;
  throw new Error(`cannot use ${file} for --ca: there is no certificate in it (expected PEM)`);
}

/** The two would pull it to and fro. */
const OTHERS = "warning: something else keeps the system clock (the kernel says that it is " +
  "synchronised), such as chronyd, ntpd or systemd-timesyncd: stop it, or leave out --set";

function show(
  fix: Fix,
  { json, quiet, maxOffset }: SyncArguments,
  corrector: Corrector | null,
): number {
  // First: printing may fail, or take time.
  const correction = corrector?.correct(fix) ?? null;
  if (json) print(fixToJson(fix));
  if (!quiet) {
    for (const sentence of describeDuplicates(fix)) {
      console.error(`tsync: ${sentence}`);
    }
  }
  if (!fix.synchronised) {
    for (const sentence of describeFailure(fix)) console.error(`tsync: ${sentence}`);
    return EXIT.failure;
  }
  setColorEnabled(isDrawable(Deno.stdout));
  if (!json && !quiet) print(describeFix(fix));
  const isDoubted = correction?.action === "doubted";
  if (correction !== null && (!quiet || isDoubted)) {
    console.error(`tsync: ${describeCorrection(correction)}`);
  }
  if (isDoubted) return EXIT.failure;
  const sentence = tooLarge(worstOfFix(fix, correction), maxOffset);
  if (sentence === null) return EXIT.ok;
  console.error(`tsync: ${sentence}`);
  return EXIT.offsetTooLarge;
}

/** How long a measurement may take before its progress is shown. */
const PROGRESS_DELAY_SECONDS = 0.5;

/** A line on stderr during a long measurement: redrawn in a terminal, otherwise written once. */
class Progress {
  readonly #terminal = isDrawable(Deno.stderr);
  readonly #cancel: () => void = () => {};
  #line = "measuring";
  #shown = false;

  constructor(quiet: boolean) {
    if (!quiet) this.#cancel = systemTimers.after(PROGRESS_DELAY_SECONDS, () => this.#show());
  }

  update(done: number, all: number): void {
    this.#line = `measuring: ${done} of ${all} exchanges`;
    if (this.#shown && this.#terminal) this.#show();
  }

  end(): void {
    this.#cancel();
    if (this.#shown && this.#terminal) this.#write("\r\x1b[K");
  }

  #show(): void {
    this.#shown = true;
    this.#write(this.#terminal ? `\r\x1b[K${this.#line}` : `${this.#line}\n`);
  }

  #write(text: string): void {
    try {
      Deno.stderr.writeSync(new TextEncoder().encode(text));
    } catch {
      // Nobody sees it, but the fix still counts.
    }
  }
}
