/**
 * Errors of the network, and their texts.
 *
 * @module
 */

import { printable } from "../ntp/printable.ts";

/** An error's message, safe to print, without the operating system's error number. */
export function errorText(error: unknown): string {
  if (error instanceof Deno.errors.ConnectionRefused) return "connection refused";
  if (error instanceof Deno.errors.ConnectionReset) return "connection reset";
  if (codeOf(error) === "EAI_AGAIN") return "no name server could tell";
  const text = error instanceof Error ? error.message : String(error);
  return printable(text.replace(/ \(os error \d+\)$/, ""));
}

/** Whether `accept` failed only because the connection was already gone: the listener still works. */
export function isLost(error: unknown): boolean {
  return error instanceof Deno.errors.NotConnected ||
    error instanceof Deno.errors.ConnectionAborted ||
    error instanceof Deno.errors.ConnectionReset;
}

/** Whether `resolve` failed because there is no such name, rather than for want of a name server. */
export function isUnknownHost(error: unknown): boolean {
  return codeOf(error) === "ENOTFOUND";
}

/** What Node's functions call an error. */
function codeOf(error: unknown): unknown {
  return error instanceof Error && "code" in error ? error.code : null;
}

/** The option of `serve` or `sync` that an {@linkcode OptionError} is about. */
export type OptionName = "port" | "udpPort" | "http" | "timestamps" | "ca";

/** An error that another value of an option would avoid. The message does not name the option. */
export class OptionError extends Error {
  /** Identifies the class where `instanceof` cannot. */
  override readonly name = "OptionError";

  /**
   * Creates an error.
   *
   * @param option The option to change.
   */
  constructor(message: string, readonly option: OptionName, options?: ErrorOptions) {
    super(message, options);
  }
}

/** The server does not speak TLS or failed verification. The message starts with a verb. */
export class TlsError extends Error {
  /** Tells the class where `instanceof` cannot. */
  override readonly name = "TlsError";

  /**
   * Creates an error.
   *
   * @param option The option to change, if that would help. Default: none.
   */
  constructor(message: string, options?: ErrorOptions, readonly option: OptionName | null = null) {
    super(message, options);
  }
}

/** A server cannot use its certificate. The message is a sentence. */
export class CertificateError extends Error {
  /** Tells the class where `instanceof` cannot. */
  override readonly name = "CertificateError";
}
