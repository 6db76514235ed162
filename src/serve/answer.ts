/**
 * From a request to its reply or its refusal. Pure: whoever carries them hands
 * in times.
 *
 * @module
 */

import { PACKET_SIZE } from "../ntp/packet.ts";
import { refuseRequest, type RequestRefusal } from "../ntp/validation.ts";
import type { Admission, Client } from "./admission.ts";
import { kiss, respond } from "./reply.ts";

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
