/**
 * What a terminal can do beyond taking lines.
 *
 * @module
 */

import { SIGTSTP as SIGTSTP_DARWIN } from "../libc/darwin.ts";
import { sharedLibc } from "../libc/libc.ts";
import { SIGTSTP as SIGTSTP_LINUX } from "../libc/structures.ts";

/** Can it show colours, and redraw what was written? */
export function isDrawable(stream: { isTerminal(): boolean }): boolean {
  return stream.isTerminal() && !Deno.noColor &&
    !["dumb", "", undefined].includes(Deno.env.get("TERM"));
}

/** What Ctrl-Z sends. */
const SIGTSTP = Deno.build.os === "darwin" ? SIGTSTP_DARWIN : SIGTSTP_LINUX;

/** No system's `struct sigaction` has more bytes. All zero, it is the default action. */
const ACTION_SIZE = 256;

/**
 * Stops the process as Ctrl-Z does by default, and returns when it continues in the foreground.
 * (`Deno.kill` would need the permission to run programs.)
 *
 * @returns `false` at once if libc may not be loaded.
 */
export function suspend(): boolean {
  const libc = sharedLibc();
  if (libc === null) return false;
  const { sigaction, raise, tcdrain } = libc;
  const caught = new Uint8Array(ACTION_SIZE);
  sigaction(SIGTSTP, new Uint8Array(ACTION_SIZE), caught);
  // Unlike SIGSTOP, this stops nothing where no shell could continue it.
  raise(SIGTSTP);
  sigaction(SIGTSTP, caught, null);
  // If it is continued in the background (`bg`), this stops it until it is in the foreground.
  tcdrain(1);
  return true;
}

/** Writes a line to stdout. @returns `false` if nobody reads it any more. */
export function print(line: string): boolean {
  const bytes = new TextEncoder().encode(`${line}\n`);
  try {
    for (let sent = 0; sent < bytes.length;) sent += Deno.stdout.writeSync(bytes.subarray(sent));
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.BrokenPipe) return false;
    throw error;
  }
}
