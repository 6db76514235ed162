/**
 * The 48-byte header of RFC 5905, section 7.3, big-endian:
 *
 * ```text
 *  0                   1                   2                   3
 *  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 * +---+-----+-----+---------------+---------------+---------------+
 * |LI | VN  |Mode |    Stratum    |     Poll      |   Precision   |  0
 * +---+-----+-----+---------------+---------------+---------------+
 * |                   Root delay (16.16 seconds)                  |  4
 * +---------------------------------------------------------------+
 * |                Root dispersion (16.16 seconds)                |  8
 * +---------------------------------------------------------------+
 * |                         Reference id                          | 12
 * +---------------------------------------------------------------+
 * |              Reference timestamp (32.32 seconds)              | 16
 * +---------------------------------------------------------------+
 * |               Origin timestamp (32.32 seconds)                | 24
 * +---------------------------------------------------------------+
 * |               Receive timestamp T2 (32.32 seconds)            | 32
 * +---------------------------------------------------------------+
 * |              Transmit timestamp T3 (32.32 seconds)            | 40
 * +---------------------------------------------------------------+
 * ```
 *
 * @module
 */

import { fromShort, toShort } from "./timestamp.ts";

/** Bytes in a message, on every transport. */
export const PACKET_SIZE = 48;

/** The only version that tsync asks for. */
export const VERSION = 4;

/** Where the fields begin that are read or written on their own, in bytes. */
export const OFFSET = { referenceId: 12, origin: 24, receive: 32, transmit: 40 } as const;

/** Association modes (RFC 5905, figure 10). */
export const MODE = { client: 3, server: 4 } as const;

/** Leap indicator (RFC 5905, figure 9), by value. */
export const LEAP = ["none", "insert", "delete", "unsynchronised"] as const;

/** The leap second that is due at the end of the month, or that the sender is not synchronised. */
export type Leap = typeof LEAP[number];

/** A decoded header. */
export interface Packet {
  /** Leap indicator. */
  leap: Leap;
  /** 0 to 7. */
  version: number;
  /** 0 to 7, see {@linkcode MODE}. */
  mode: number;
  /** 0: a kiss; 1: has a reference clock; 2 to 15: gets its time from a server; 16: unsynchronised. */
  stratum: number;
  /** Log2 seconds, signed. */
  poll: number;
  /** Log2 seconds, signed: the resolution of the sender's clock. */
  precision: number;
  /** Seconds, round trip to the reference clock. */
  rootDelay: number;
  /** Seconds, greatest error with respect to the reference clock. */
  rootDispersion: number;
  /** 32 bits: four ASCII letters (stratum 0 and 1) or an IPv4 address or hash. */
  referenceId: number;
  /** NTP timestamp: when the sender's clock was last set. */
  reference: bigint;
  /** NTP timestamp: the request's transmit field, copied. */
  origin: bigint;
  /** NTP timestamp T2: when the request arrived. */
  receive: bigint;
  /** NTP timestamp T3 of a reply; a nonce in a request. */
  transmit: bigint;
}

/** Encodes a header. Root delay and dispersion are rounded up to 2^-16 s. @returns 48 bytes. */
export function encodePacket(packet: Readonly<Packet>): Uint8Array {
  const bytes = new Uint8Array(PACKET_SIZE);
  const view = viewOf(bytes);
  view.setUint8(0, LEAP.indexOf(packet.leap) << 6 | packet.version << 3 | packet.mode);
  view.setUint8(1, packet.stratum);
  view.setInt8(2, packet.poll);
  view.setInt8(3, packet.precision);
  view.setUint32(4, toShort(packet.rootDelay));
  view.setUint32(8, toShort(packet.rootDispersion));
  view.setUint32(OFFSET.referenceId, packet.referenceId);
  view.setBigUint64(16, packet.reference);
  view.setBigUint64(OFFSET.origin, packet.origin);
  view.setBigUint64(OFFSET.receive, packet.receive);
  view.setBigUint64(OFFSET.transmit, packet.transmit);
  return bytes;
}

/**
 * Decodes a header. Any 48 bytes decode; whether they make sense is for
 * `validation.ts` to say.
 *
 * @throws {RangeError} if there are fewer than 48 bytes.
 */
export function decodePacket(bytes: Uint8Array): Packet {
  const view = viewOf(bytes);
  const first = view.getUint8(0);
  return {
    leap: LEAP[first >> 6 & 3]!,
    version: first >> 3 & 7,
    mode: first & 7,
    stratum: view.getUint8(1),
    poll: view.getInt8(2),
    precision: view.getInt8(3),
    rootDelay: fromShort(view.getUint32(4)),
    rootDispersion: fromShort(view.getUint32(8)),
    referenceId: view.getUint32(OFFSET.referenceId),
    reference: view.getBigUint64(16),
    origin: view.getBigUint64(OFFSET.origin),
    receive: view.getBigUint64(OFFSET.receive),
    transmit: view.getBigUint64(OFFSET.transmit),
  };
}

/**
 * Writes a client's request that tells the server nothing about the client
 * (draft-ietf-ntp-data-minimization): all zero but version, mode, a precision
 * of 0x20 and 64 random bits in place of T1, which the client keeps to itself.
 *
 * @param bytes Where to write it, 48 bytes.
 * @param nonce 64 random bits.
 */
export function encodeRequest(bytes: Uint8Array, nonce: bigint): void {
  bytes.fill(0);
  bytes[0] = VERSION << 3 | MODE.client;
  bytes[3] = 0x20;
  viewOf(bytes).setBigUint64(OFFSET.transmit, nonce);
}

/** The four bytes of an ASCII reference id or kiss code, such as `LOCL`. */
export function encodeReferenceId(code: string): number {
  let id = 0;
  for (let i = 0; i < 4; i++) id = id << 8 | (code.charCodeAt(i) || 0);
  return id >>> 0;
}

/**
 * A reference id for people: letters for a reference clock, a kiss or tsync's
 * own `LOCL`, else dotted, since it is usually an IPv4 address.
 */
export function referenceIdText(id: number, stratum: number): string {
  const bytes = [id >>> 24, id >> 16 & 255, id >> 8 & 255, id & 255];
  if (stratum > 1 && id !== encodeReferenceId("LOCL")) return bytes.join(".");
  const text = String.fromCharCode(...bytes).replace(/\0+$/, "");
  return text.replace(/[^\x20-\x7e]/g, "?");
}

/** A view of a message's bytes, wherever in their buffer they are. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
