/**
 * Which messages count. Every refusal has a name, so that it can be counted
 * and reported; its words for people are here too, beside the rule.
 *
 * @module
 */

import {
  decodePacket,
  MODE,
  type Packet,
  PACKET_SIZE,
  referenceIdText,
  VERSION,
} from "./packet.ts";
import { isAuthentic, type MessageKey } from "./mac.ts";
import { timestampDifference } from "./timestamp.ts";

/** Why a server does not answer a request. */
export type RequestRefusal = "version" | "mode";

/**
 * Judges a request by its first byte. Nothing else can be wrong with 48 bytes:
 * every other field is the client's own business.
 *
 * @returns The reason to refuse it, or `null` if it is to be answered.
 */
export function refuseRequest(firstByte: number): RequestRefusal | null {
  const version = firstByte >> 3 & 7;
  if (version < 1 || version > VERSION) return "version";
  return (firstByte & 7) === MODE.client ? null : "mode";
}

/** The root distance from which a server is of no use: MAXDISP (RFC 5905, section 11.2). */
const MAX_ROOT_DISTANCE_SECONDS = 16;

/** Why a client does not believe a reply. */
export type ReplyRejection =
  | "length"
  | "mode"
  | "version"
  | "origin"
  | "mac"
  | "kiss"
  | "stratum"
  | "unsynchronised"
  | "timestamp"
  | "order"
  | "root-distance";

/** A judged reply: believed, or with the reason why not. */
export type JudgedReply =
  | { readonly packet: Packet; readonly rejection: null }
  | { readonly packet: Packet | null; readonly rejection: ReplyRejection };

/**
 * Judges a reply (RFC 5905, section 8 and appendix A.5.1.1).
 *
 * @param bytes The whole reply.
 * @param nonce The transmit field of the request that it should answer.
 * @param key The key of its MAC. Default: it has none.
 */
export function judgeReply(
  bytes: Uint8Array,
  nonce: bigint,
  key: MessageKey | null = null,
): JudgedReply {
  const isPossible = key === null ? bytes.length === PACKET_SIZE : bytes.length >= PACKET_SIZE;
  if (!isPossible) return { packet: null, rejection: "length" };
  const packet = decodePacket(bytes);
  const rejection = rejectStranger(packet, nonce) ??
    (key === null || isAuthentic(bytes, key) ? rejectContent(packet) : "mac");
  return { packet, rejection } as JudgedReply;
}

/** Before everything that a stranger could forge: only the server saw the nonce. */
function rejectStranger(packet: Packet, nonce: bigint): ReplyRejection | null {
  if (packet.mode !== MODE.server) return "mode";
  if (packet.version !== VERSION) return "version";
  return packet.origin === nonce ? null : "origin";
}

function rejectContent(packet: Packet): ReplyRejection | null {
  // Servers that are not synchronised send 0 or 16. A kiss has a code.
  if (packet.stratum === 0 && packet.referenceId !== 0) return "kiss";
  if (packet.leap === "unsynchronised" || packet.stratum === 16) return "unsynchronised";
  if (packet.stratum === 0) return "kiss";
  if (packet.stratum > 16) return "stratum";
  if (packet.receive === 0n || packet.transmit === 0n) return "timestamp";
  if (timestampDifference(packet.transmit, packet.receive) < 0n) return "order";
  // A clock can be wrong by its resolution (RFC 5905, appendix A.5.1.1: part of its dispersion).
  const distance = packet.rootDelay / 2 + packet.rootDispersion + 2 ** packet.precision;
  if (distance >= MAX_ROOT_DISTANCE_SECONDS) return "root-distance";
  return null;
}

/**
 * What was wrong with a reply, as the end of a sentence that begins with the
 * server's name.
 */
export function rejectionText(rejection: ReplyRejection, packet: Packet | null): string {
  switch (rejection) {
    case "length":
      return `sent a reply that is not ${PACKET_SIZE} bytes long`;
    case "mode":
      return `sent something that is not an NTP server's reply (mode ${packet?.mode}, expected ${MODE.server})`;
    case "version":
      return `answered in NTP version ${packet?.version} when asked in version ${VERSION}`;
    case "origin":
      return "sent a reply that does not belong to the request (wrong origin timestamp)";
    case "mac":
      return "sent a reply without the right MAC";
    case "kiss":
      return kissText(kissCode(packet));
    case "stratum":
      return `announces stratum ${packet?.stratum}, which does not exist`;
    case "unsynchronised":
      return "is not synchronised itself, and says so";
    case "timestamp":
      return "sent a reply with an empty timestamp";
    case "order":
      return "says that it answered before the request arrived (T3 is before T2)";
    case "root-distance":
      return `is too far from its own reference to be of use (root distance and precision of ${MAX_ROOT_DISTANCE_SECONDS} s or more)`;
  }
}

/** The four letters of a kiss-o'-death (RFC 5905, section 7.4). */
export function kissCode(packet: Packet | null): string {
  return packet === null ? "" : referenceIdText(packet.referenceId, 0);
}

function kissText(code: string): string {
  switch (code) {
    case "DENY":
    case "RSTR":
      return `refuses to serve this client (kiss ${code})`;
    case "RATE":
      return "was asked too often (kiss RATE): wait before asking again";
    default:
      return `sent a kiss instead of the time (stratum 0, code "${code}")`;
  }
}
