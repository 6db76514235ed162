/**
 * Message authentication codes (RFC 5905, section 7.3; RFC 8573). Who has the same key as the other
 * end can tell that a message is the other's, and as it was sent:
 *
 * ```text
 * +----------------------+-------------------+------------------------+
 * | header (48 bytes)    | key ID (32 bits)  | MAC (128 bits or more) |
 * +----------------------+-------------------+------------------------+
 * ```
 *
 * @module
 */

import { PACKET_SIZE, viewOf } from "./packet.ts";

/** Bytes of a key's ID. */
export const KEY_ID_SIZE = 4;

/** Bytes of the longest MAC, SHA-512. */
const MAX_MAC_SIZE = 64;

/** The same in version 4, in which longer ones are cut: RFC 7822, section 3. */
const MAX_MAC_SIZE_V4 = 20;

/** Bytes of the shortest MAC, MD5 and AES-CMAC. */
const MIN_MAC_SIZE = 16;

/** Bytes of the longest message. */
export const MAX_MESSAGE_SIZE: number = PACKET_SIZE + KEY_ID_SIZE + MAX_MAC_SIZE;

/** A key that both ends have. */
export interface MessageKey {
  /** The number by which both ends call it: 1 to 2^32 - 1. */
  readonly id: number;
  /** The whole length of its MAC in bytes. */
  readonly macSize: number;
  /**
   * Writes the key's ID and the header's MAC behind the header.
   *
   * @param message As long as {@linkcode messageSize} says.
   */
  sign(message: Uint8Array): void;
  /**
   * Whether the key's ID and the header's MAC are right. Takes as long whatever is wrong with the MAC.
   *
   * @param message As long as {@linkcode messageSize} says.
   */
  verify(message: Uint8Array): boolean;
}

/** Keys by their IDs. */
export type Keys = ReadonlyMap<number, MessageKey>;

/** The length of a message with a key's MAC, in bytes. */
export function messageSize({ macSize }: MessageKey, version: number): number {
  const most = version >= 4 ? MAX_MAC_SIZE_V4 : MAX_MAC_SIZE;
  return PACKET_SIZE + KEY_ID_SIZE + Math.min(macSize, most);
}

/** The ID of the key behind a header. */
export function keyIdOf(message: Uint8Array): number {
  return viewOf(message).getUint32(PACKET_SIZE);
}

/** Whether a message has the right MAC of this key. @param key If there is none, it has not. */
export function isAuthentic(message: Uint8Array, key: MessageKey | undefined): boolean {
  return key !== undefined && message.length === messageSize(key, versionOf(message)) &&
    key.verify(message);
}

/**
 * How much of a datagram is a header and a MAC. A MAC is told from extension fields by its length
 * (RFC 7822, section 3), which before version 4 there were not.
 *
 * @param first The first bytes.
 * @param length The datagram's length in bytes, at least that of a header.
 * @returns Bytes; only those of the header if there is no MAC.
 */
export function authenticatedSize(first: Uint8Array, length: number): number {
  const size = length - PACKET_SIZE - KEY_ID_SIZE;
  const isMac = versionOf(first) >= 4
    ? size === MIN_MAC_SIZE || size === MAX_MAC_SIZE_V4
    : size >= MIN_MAC_SIZE && size <= MAX_MAC_SIZE;
  return isMac ? length : PACKET_SIZE;
}

/** The version of a message. */
export function versionOf(message: Uint8Array): number {
  return message[0]! >> 3 & 7;
}
