/**
 * From a request to its reply or its refusal. Pure: times are handed in.
 *
 * @module
 */

import type { ClockState } from "../clock/clock.ts";
import {
  encodePacket,
  encodeReferenceId,
  LEAP,
  MODE,
  OFFSET,
  PACKET_SIZE,
  VERSION,
  viewOf,
} from "../ntp/packet.ts";
import { toTimestamp, writeTimestamp } from "../ntp/timestamp.ts";
import { refuseRequest, type RequestRefusal } from "../ntp/validation.ts";
import type { Admission, Client } from "./admission.ts";

/** Stratum of a server whose own clock is the reference (as chronyd's `local`). */
const LOCAL_STRATUM = 10;

/** Stratum of a server whose clock something else keeps: the kernel does not say how far away its source is. */
const SYNCHRONISED_STRATUM = 2;

/**
 * Makes what is alike in all replies: what the server says of its own clock.
 *
 * An unsynchronised host still serves. Its clock is the reference then, and
 * is off from itself by no more than its precision.
 *
 * @param state What the kernel says; `null` if it cannot be asked.
 * @param precision Of the clock, in seconds.
 * @param now Nanoseconds since the Unix epoch; becomes the reference time.
 * @param stratum What to announce. Default: by the kernel's state, 2 or 10.
 */
export function replyTemplate(
  state: ClockState | null,
  precision: number,
  now: bigint,
  stratum?: number,
): Uint8Array {
  const synchronised = state?.synchronised ?? false;
  return encodePacket({
    leap: synchronised ? state!.leap : "none",
    version: VERSION,
    mode: MODE.server,
    stratum: stratumOf(state, stratum),
    poll: 0,
    precision: Math.ceil(Math.log2(precision)),
    rootDelay: 0,
    rootDispersion: synchronised ? state!.maximumError : precision,
    referenceId: encodeReferenceId("LOCL"),
    reference: toTimestamp(now),
    origin: 0n,
    receive: 0n,
    transmit: 0n,
  });
}

/** The stratum to announce: the one that somebody wants, or else 2 or 10, by the kernel's state. */
export function stratumOf(state: ClockState | null, wanted: number | undefined): number {
  return wanted ?? (state?.synchronised ? SYNCHRONISED_STRATUM : LOCAL_STRATUM);
}

/**
 * Answers a request, in its own version, all but T3: {@linkcode stampTransmit}
 * writes that at the very last.
 *
 * @param request 48 bytes that `refuseRequest` does not refuse.
 * @param reply Where to, 48 bytes.
 * @param announced As made by {@linkcode replyTemplate}.
 * @param received T2, nanoseconds since the Unix epoch.
 */
export function respond(
  request: Uint8Array,
  reply: Uint8Array,
  announced: Uint8Array,
  received: bigint,
): void {
  // Byte by byte: for so few that is much faster than `set()` and `subarray()`.
  for (let i = 0; i < PACKET_SIZE; i++) reply[i] = announced[i]!;
  reply[0] = announced[0]! & 0xc0 | request[0]! & 0x38 | MODE.server;
  reply[2] = request[2]!;
  for (let i = 0; i < 8; i++) reply[OFFSET.origin + i] = request[OFFSET.transmit + i]!;
  writeTimestamp(reply, OFFSET.receive, received);
}

/**
 * Makes a reply a kiss-o'-death (RFC 5905, section 7.4): it says why its
 * time is not to be used. T3 is written as into any reply.
 *
 * @param code Four letters, such as `RATE`.
 */
export function kiss(reply: Uint8Array, code: string): void {
  const view = viewOf(reply);
  view.setUint8(0, view.getUint8(0) | LEAP.indexOf("unsynchronised") << 6);
  view.setUint8(1, 0);
  view.setUint32(OFFSET.referenceId, encodeReferenceId(code));
}

/** Writes T3 into a reply. The write to the wire is to follow at once. */
export function stampTransmit(reply: Uint8Array, instant: bigint): void {
  writeTimestamp(reply, OFFSET.transmit, instant);
}

/**
 * Answers a request that came over a connection, all but T3: with the time, or
 * with the news that this is too often.
 *
 * @param request 48 bytes that `refuseRequest` does not refuse.
 * @param announced As made by `replyTemplate`.
 * @param received T2, nanoseconds since the Unix epoch.
 * @param reply Where to, 48 bytes.
 * @returns Whether the reply is to be the last, and why.
 */
export function answerMessage(
  admission: Admission,
  client: Client,
  request: Uint8Array,
  announced: Uint8Array,
  received: bigint,
  reply: Uint8Array,
): "rate" | null {
  respond(request, reply, announced, received);
  if (admission.request(client, received)) return null;
  kiss(reply, "RATE");
  return "rate";
}

/** Why a datagram is not answered with the time. */
export type DatagramRefusal = "incomplete" | RequestRefusal | "denied" | "rate";

/**
 * Answers a datagram, all but T3, or says why it does not. What follows the
 * header in a datagram, extension fields or a MAC, is ignored.
 *
 * @param sender The client's IP address.
 * @param request The first 48 bytes.
 * @param length How many have come.
 * @param announced As made by `replyTemplate`.
 * @param received T2, nanoseconds since the Unix epoch.
 * @param reply Gives the place for a reply, if there is to be one: 48 bytes.
 */
export function answerDatagram(
  admission: Admission,
  sender: string,
  request: Uint8Array,
  length: number,
  announced: Uint8Array,
  received: bigint,
  reply: () => Uint8Array,
): DatagramRefusal | null {
  if (length < PACKET_SIZE) return "incomplete";
  const refusal = refuseRequest(request[0]!);
  if (refusal !== null) return refusal;
  const verdict = admission.datagram(sender, received);
  if (verdict === "denied" || verdict === "rate") return verdict;
  const bytes = reply();
  respond(request, bytes, announced, received);
  if (verdict === "answer") return null;
  kiss(bytes, "RATE");
  return "rate";
}
