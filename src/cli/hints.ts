/**
 * Where the library's errors speak of an option, the command line names the flag.
 *
 * @module
 */

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
  if (error instanceof OptionError) return withHint(error.message, error.option);
  return error instanceof Error ? error.message : String(error);
}

/** A sentence, with the hint for an option, if it is about one. */
export function withHint(sentence: string, option: OptionName | null): string {
  return sentence + (option === null ? "" : HINTS[option]);
}
