/**
 * From a datagram to its reply. Pure: whoever carries them hands in times.
 *
 * @module
 */

import { PACKET_SIZE } from "../ntp/packet.ts";
import { refuseRequest } from "../ntp/validation.ts";
import type { Admission, Limits } from "./admission.ts";
import { kiss, respond } from "./respond.ts";

/** Why a datagram is not answered with the time. */
export type DatagramRefusal = typeof DATAGRAM_REFUSALS[number];

/** All of them. */
export const DATAGRAM_REFUSALS = ["incomplete", "version", "mode", "denied", "rate"] as const;

/**
 * Answers a request, all but T3, or says why it does not. What follows the
 * header in a datagram, extension fields or a MAC, is ignored.
 *
 * @param sender The client's IP address.
 * @param request The first 48 bytes.
 * @param length How many have come.
 * @param announced As made by `announcement`.
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

/** What a worker is told when it starts. */
export interface WorkerOrder {
  readonly fd: number;
  readonly stratum: number | undefined;
  readonly limits: Limits;
  readonly shared: SharedArrayBuffer;
}

/** What a worker shares with the server, as numbers: whether to stop, and counts. */
export const SHARED = { stop: 0, replies: 1, refusals: 2 } as const;

/** Bytes of that. */
export const SHARED_SIZE = 8 * (SHARED.refusals + DATAGRAM_REFUSALS.length);
