/**
 * What the library says of an option, said of its flag.
 *
 * @module
 */

import { OptionError, type OptionName } from "../net/errors.ts";

/** How a sentence about an option goes on. */
const HINTS: Readonly<Record<OptionName, string>> = {
  port: ", or choose another with --port",
  udpPort: ", or choose another with --udp-port",
  http: ", or choose another with --http",
  timestamps: "; do without --timestamps kernel",
  ca: "; name its authority's with --ca",
};

/** An error's sentence, with the flag that would avert it. */
export function sentenceOf(error: unknown): string {
  if (error instanceof OptionError) return withHint(error.message, error.option);
  return error instanceof Error ? error.message : String(error);
}

/** A sentence, with the flag of an option if there is one. */
export function withHint(sentence: string, option: OptionName | null): string {
  return sentence + (option === null ? "" : HINTS[option]);
}
