/**
 * What goes wrong in a network, in words.
 *
 * @module
 */

import { printable } from "../ntp/printable.ts";

/** What went wrong, in words that can be shown: of the operating system's errors only the sentence. */
export function errorText(error: unknown): string {
  if (error instanceof Deno.errors.ConnectionRefused) return "connection refused";
  if (error instanceof Deno.errors.ConnectionReset) return "connection reset";
  const text = error instanceof Error ? error.message : String(error);
  return printable(text.replace(/ \(os error \d+\)$/, ""));
}

/** Does an error of `accept` say that a connection ended before? That is no trouble of the listener's. */
export function isLost(error: unknown): boolean {
  return error instanceof Deno.errors.NotConnected ||
    error instanceof Deno.errors.ConnectionAborted ||
    error instanceof Deno.errors.ConnectionReset;
}

/** Does an error of `resolve` say that there is no such name, rather than that nobody could be asked? */
export function isUnknownHost(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "ENOTFOUND";
}

/** What an {@linkcode OptionError} is about, by the name of the library's option. */
export type OptionName = "port" | "udpPort" | "http" | "timestamps" | "ca";

/** Another value of an option would avert it. The message leaves out the option, which a command line calls by another name. */
export class OptionError extends Error {
  /** Tells the class where `instanceof` cannot. */
  override readonly name = "OptionError";

  /** @param option What to change. */
  constructor(message: string, readonly option: OptionName, options?: ErrorOptions) {
    super(message, options);
  }
}

/** The other end speaks, but not TLS, or has not shown that it is who it should be. The message begins with a verb. */
export class TlsError extends Error {
  override readonly name = "TlsError";
}

/** A server cannot show this certificate. The message is a sentence. */
export class CertificateError extends Error {
  override readonly name = "CertificateError";
}
