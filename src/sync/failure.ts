/**
 * Why a server could not be measured, in words.
 *
 * @module
 */

import { formatAddress } from "../net/address.ts";
import { ChannelError } from "../net/channel.ts";
import { looksLikeTls } from "../net/deno/tls.ts";
import { errorText, type OptionName, TlsError } from "../net/errors.ts";
import type { Packet } from "../ntp/packet.ts";
import { kissCode, rejectionText, type ReplyRejection } from "../ntp/validation.ts";
import { type Conversation, NoConnection } from "./conversation.ts";

/** Why there is no measurement of a server, or not a whole one. */
export interface Failure {
  /** `unreachable`: it did not answer. `invalid`: what it said cannot be believed. */
  readonly status: "unreachable" | "invalid";
  /** The address that was tried last; `null` if the name was not resolved. */
  readonly address: string | null;
  /** A sentence that begins with the server's name. */
  readonly error: string;
  /** What would avert it, if an option would. */
  readonly option?: OptionName | null;
  /** Does the server itself say not to use it? That voids what it said before. */
  readonly final: boolean;
  /** Seconds for which the server wants to be left alone. */
  readonly silence?: number | undefined;
}

/** Seconds for which a server is left alone after a kiss: a RATE kiss, and any other. */
const SILENCE_SECONDS = { rate: 64, denied: 3600 } as const;

/** A reply that is not to be believed. The message begins with a verb. */
export class RejectedReply extends Error {
  constructor(readonly rejection: ReplyRejection, readonly packet: Packet | null) {
    super(rejectionText(rejection, packet));
  }

  get silence(): number | undefined {
    if (this.rejection !== "kiss") return undefined;
    return kissCode(this.packet) === "RATE" ? SILENCE_SECONDS.rate : SILENCE_SECONDS.denied;
  }

  /** A RATE kiss takes back nothing that was said before; other kisses do. */
  get isFinal(): boolean {
    return this.rejection === "unsynchronised" ||
      this.rejection === "kiss" && kissCode(this.packet) !== "RATE";
  }
}

/**
 * Puts an error into words.
 *
 * @param name The server's.
 * @param timeout Seconds, if they are over; else `null`.
 */
export function failureOf(
  error: unknown,
  name: string,
  { address, reply, target: { key, proxy } }: Conversation,
  timeout: number | null,
): Failure {
  const rejected = error instanceof RejectedReply ? error : null;
  const what = address === null ? "could not be looked up" : "did not answer";
  let text = timeout === null
    ? `could not be measured: ${errorText(error)}`
    : `${what} within ${timeout} s`;
  if (error instanceof NoConnection || error instanceof TlsError) text = error.message;
  if (error instanceof ChannelError || error instanceof RejectedReply) {
    text = error.message + quotation(error, reply);
  }
  const isUnanswered = address !== null && timeout !== null || error instanceof ChannelError;
  if (key !== null && (isUnanswered || rejected?.rejection === "mac")) {
    text += `; does it have the same key ${key.id}?`;
  }
  if (proxy !== null && (isUnanswered || error instanceof TlsError)) {
    text += ` (through the proxy ${formatAddress(proxy)})`;
  }
  return {
    status: rejected !== null || error instanceof TlsError ? "invalid" : "unreachable",
    address,
    error: `${name} ${text}`,
    option: error instanceof TlsError ? error.option : null,
    final: rejected?.isFinal ?? false,
    silence: rejected?.silence,
  };
}

/** What the server sent instead of a reply, if it is text. */
function quotation(error: ChannelError | RejectedReply, reply: Uint8Array): string {
  if (looksLikeTls(reply)) return "; it speaks TLS: ask it as tls://";
  if (error instanceof RejectedReply && !["mode", "version"].includes(error.rejection)) return "";
  const text = /^[\x20-\x7e]{4,}/.exec(String.fromCharCode(...reply));
  return text === null ? "" : `: it sent "${text[0]}"`;
}
