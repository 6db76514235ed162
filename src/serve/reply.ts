/**
 * Makes replies to requests, or refuses them. Pure: times are passed in.
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
import type { Admission } from "./admission.ts";

/** Stratum of a server whose own clock is the reference, as in chronyd's `local` mode. */
const LOCAL_STRATUM = 10;

/** Stratum of a server whose clock is synchronised. The kernel does not know its source's stratum. */
const SYNCHRONISED_STRATUM = 2;

/**
 * Makes the reply template: the part that all replies share, about the server's
 * own clock.
 *
 * An unsynchronised host still serves. Its clock is then the reference, and
 * differs from itself by no more than its precision.
 *
 * @param state The kernel's clock state; `null` if it is unknown.
 * @param precision The clock's precision in seconds.
 * @param now The reference time: nanoseconds since the Unix epoch.
 * @param stratum The stratum to announce. Default: 2 or 10, by the clock state.
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

/** The stratum to announce: `wanted`, or else 2 or 10, by the clock state. */
export function stratumOf(state: ClockState | null, wanted: number | undefined): number {
  return wanted ?? (state?.synchronised ? SYNCHRONISED_STRATUM : LOCAL_STRATUM);
}

/**
 * Writes the reply to a request, in the request's version. Only T3 is left to
 * {@linkcode stampTransmit}.
 *
 * @param request 48 bytes that `refuseRequest` accepts.
 * @param reply 48 bytes to write to.
 * @param template Made by {@linkcode replyTemplate}.
 * @param received T2, nanoseconds since the Unix epoch.
 */
export function respond(
  request: Uint8Array,
  reply: Uint8Array,
  template: Uint8Array,
  received: bigint,
): void {
  // For so few bytes a loop is much faster than `set()` and `subarray()`.
  for (let i = 0; i < PACKET_SIZE; i++) reply[i] = template[i]!;
  reply[0] = template[0]! & 0xc0 | request[0]! & 0x38 | MODE.server;
  reply[2] = request[2]!;
  for (let i = 0; i < 8; i++) reply[OFFSET.origin + i] = request[OFFSET.transmit + i]!;
  writeTimestamp(reply, OFFSET.receive, received);
}

/**
 * Turns a reply into a kiss-o'-death for who asks too often (RFC 5905, section 7.4), whose time is
 * not to be used. T3 is still to be written.
 */
export function kissRate(reply: Uint8Array): void {
  const view = viewOf(reply);
  view.setUint8(0, view.getUint8(0) | LEAP.indexOf("unsynchronised") << 6);
  view.setUint8(1, 0);
  view.setUint32(OFFSET.referenceId, encodeReferenceId("RATE"));
}

/** Writes T3 into a reply. Send it at once. */
export function stampTransmit(reply: Uint8Array, instant: bigint): void {
  writeTimestamp(reply, OFFSET.transmit, instant);
}

/** Why a datagram is not answered with the time. */
export type DatagramRefusal = "incomplete" | RequestRefusal | "denied" | "rate";

/**
 * Writes the reply to a datagram, but for T3. Extension fields and a MAC after
 * the header are ignored.
 *
 * @param sender The client's IP address.
 * @param request The first 48 bytes.
 * @param length The datagram's length in bytes.
 * @param template Made by `replyTemplate`.
 * @param received T2, nanoseconds since the Unix epoch.
 * @param reply Called if there is to be a reply; returns 48 bytes to write to.
 * @returns Why the datagram is not answered with the time; `null` if it is.
 */
export function answerDatagram(
  admission: Admission,
  sender: string,
  request: Uint8Array,
  length: number,
  template: Uint8Array,
  received: bigint,
  reply: () => Uint8Array,
): DatagramRefusal | null {
  if (length < PACKET_SIZE) return "incomplete";
  const refusal = refuseRequest(request[0]!);
  if (refusal !== null) return refusal;
  const verdict = admission.datagram(sender, received);
  if (verdict !== "answer" && verdict !== "kiss") return verdict;
  const bytes = reply();
  respond(request, bytes, template, received);
  if (verdict === "answer") return null;
  kissRate(bytes);
  return "rate";
}
