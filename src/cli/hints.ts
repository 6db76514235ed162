/**
 * Where the library's errors speak of an option, the command line names the flag.
 *
 * @module
 */

import type { Fix } from "../mod.ts";
import { OptionError, type OptionName } from "../net/errors.ts";

/** The end of a sentence about an option. */
const HINTS: Readonly<Record<OptionName, string>> = {
  port: ", or choose another with --port",
  udpPort: ", or choose another with --udp-port",
  http: ", or choose another with --http",
  timestamps: "; leave out --timestamps kernel",
  ca: "; name its authority's with --ca",
};

/** An error's sentence, with the flag that would avert it, if there is one. */
export function sentenceOf(error: unknown): string {
  if (error instanceof OptionError) return error.message + HINTS[error.option];
  return error instanceof Error ? error.message : String(error);
}

/** A fix whose errors name flags. */
export function withHints(fix: Fix): Fix {
  const servers = fix.servers.map((server) =>
    server.option === null ? server : { ...server, error: server.error + HINTS[server.option] }
  );
  return { ...fix, servers };
}
