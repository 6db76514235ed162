/**
 * Trust in TLS certificates, and messages for what is wrong with one.
 *
 * @module
 */

import type { Certificate } from "../network.ts";
import { CertificateError, TlsError } from "../errors.ts";
import { printable } from "../../ntp/printable.ts";

/**
 * Sets which authorities this process trusts. Call it before the first
 * connection with TLS: later calls have no effect.
 *
 * By default Deno trusts its own list, to which certificates given to
 * `startTls` are added; only this variable selects another list, or none.
 *
 * @param authorities Those of the operating system, or only those in
 * {@linkcode TlsOptions.ca}.
 * @throws {Deno.errors.NotCapable} without permission to set the variable.
 */
export function trustOnly(authorities: "system" | "named"): void {
  Deno.env.set("DENO_TLS_CA_STORE", authorities === "system" ? "system" : "");
}

/**
 * Explains why a handshake failed.
 *
 * @returns What to throw instead; `error` itself if the connection broke.
 */
export function handshakeError(error: unknown): unknown {
  if (isNoTls(error)) {
    return new TlsError("does not speak TLS; ask it as tcp://", { cause: error });
  }
  if (!(error instanceof Deno.errors.InvalidData)) return error;
  const text = certificateErrorText(printable(error.message));
  return new TlsError(text, { cause: error }, text === UNKNOWN_AUTHORITY ? "ca" : null);
}

/** @throws {CertificateError} if the key needs a passphrase. */
export function refuseEncrypted({ key }: Certificate): void {
  if (!/ENCRYPTED/.test(key)) return;
  throw new CertificateError("cannot use the certificate: its key is encrypted; decrypt it first");
}

/** Explains what is wrong with a server's certificate. @returns Other errors as they are. */
export function certificateError(error: unknown): unknown {
  if (!(error instanceof Error) || error instanceof Deno.errors.AddrInUse) return error;
  const { message } = error;
  const what = message.includes("No certificates")
    ? "there is no certificate in it"
    : message.includes("No keys")
    ? "there is no private key in its key"
    : message.includes("KeyMismatch")
    ? "the key belongs to another certificate"
    : /^(invalid peer certificate: |unexpected error: |Unable to decode)/.test(message)
    ? `it cannot be read (${message.replace(/^.*?: /, "")})`
    : null;
  return what === null
    ? error
    : new CertificateError(`cannot use the certificate: ${what}`, { cause: error });
}

/** Explains what is wrong with {@linkcode TlsOptions}. @returns Other errors as they are. */
export function authorityError(error: unknown, hostname: string): unknown {
  const message = error instanceof Error ? error.message : String(error);
  const what = /BadEncoding|certificate|pem/i.test(message)
    ? `the authority's certificate cannot be read (${message.replace(/^.*?: /, "")})`
    : message.startsWith("Invalid hostname")
    ? `${hostname} is not a valid host name`
    : null;
  return what === null ? error : new TlsError(`cannot be asked: ${what}`, { cause: error });
}

function isNoTls(error: unknown): boolean {
  return error instanceof Error && /InvalidContentType|InvalidMessage/.test(error.message);
}

const UNKNOWN_AUTHORITY = "has a certificate of an unknown authority";

/** @param message In the words of rustls, which Deno uses. */
function certificateErrorText(message: string): string {
  const problem = message.replace(/^invalid peer certificate: /, "");
  if (problem.startsWith("UnknownIssuer")) return UNKNOWN_AUTHORITY;
  const names = /not valid for name "(.*?)"; certificate is (.*)$/.exec(problem);
  if (names !== null) {
    const valid = [...names[2]!.matchAll(/\w+\("?(.*?)"?\)/g)].map(([, name]) => name);
    const others = valid.length === 0 ? "names none" : `is for ${valid.join(", ")}`;
    return `has a certificate for another name: not for ${names[1]}, it ${others}`;
  }
  const clock = "or the local clock is far off";
  if (/expired/i.test(problem)) {
    return `has a certificate that has expired${since(problem)}, ${clock}`;
  }
  if (/not valid yet|NotValidYet/.test(problem)) {
    return `has a certificate that is not valid yet${since(problem)}, ${clock}`;
  }
  if (problem.includes("CaUsedAsEndEntity")) {
    return "shows an authority's certificate as its own (CA:TRUE); it needs one with CA:FALSE";
  }
  return `failed in the TLS handshake: ${problem}`;
}

/** The limit of the certificate's validity, which rustls may give in seconds since the Unix epoch. */
function since(problem: string): string {
  const moment = /not valid (after|before) (\d+)/.exec(problem);
  if (moment === null) return "";
  const date = new Date(Number(moment[2]) * 1000).toISOString().slice(0, 10);
  return ` (valid ${moment[1] === "after" ? "until" : "from"} ${date})`;
}

/** Whether a message starts like one of TLS: an alert or a handshake. */
export function looksLikeTls(bytes: Uint8Array): boolean {
  return (bytes[0] === 21 || bytes[0] === 22) && bytes[1] === 3;
}
