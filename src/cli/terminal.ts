/**
 * The terminal, where it is more than a place for lines.
 *
 * @module
 */

import { sharedLibc } from "../libc/libc.ts";

/** May colours be shown there, and may what was written be written over? */
export function isDrawable(stream: { isTerminal(): boolean }): boolean {
  return stream.isTerminal() && !Deno.noColor &&
    !["dumb", "", undefined].includes(Deno.env.get("TERM"));
}

/** As Ctrl-Z sends it. */
const SIGTSTP = Deno.build.os === "darwin" ? 18 : 20;

/** Bytes that no system's `struct sigaction` exceeds. All zero it is the default action. */
const ACTION_SIZE = 256;

/**
 * Stops the process as Ctrl-Z does where nobody listens for it (Deno's way of sending a signal
 * takes the permission to run programs), and returns when it goes on in the foreground.
 *
 * @returns `false` at once if libc may not be loaded.
 */
export function suspend(): boolean {
  const libc = sharedLibc();
  if (libc === null) return false;
  const { sigaction, raise, tcdrain } = libc;
  const caught = new Uint8Array(ACTION_SIZE);
  sigaction(SIGTSTP, new Uint8Array(ACTION_SIZE), caught);
  // Not SIGSTOP: without a shell that could continue it, the kernel does not stop it either.
  raise(SIGTSTP);
  sigaction(SIGTSTP, caught, null);
  // Continued in the background (`bg`), it is stopped here until it is in the foreground.
  tcdrain(1);
  return true;
}

/** Writes a line to stdout. @returns Is there still somebody who reads? */
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
