/**
 * Symmetric keys, and the file in which chrony keeps them (chrony.conf(5), `keyfile`). Loaded only
 * where there are keys: `node:crypto` takes longer to load than everything else.
 *
 * @module
 */

import { createCipheriv, createHash } from "node:crypto";
import { KEY_ID_SIZE, keyIdOf, type Keys, type MessageKey } from "./mac.ts";
import { PACKET_SIZE, viewOf } from "./packet.ts";
import { refuseRequest } from "./validation.ts";

/** Computes a header's MAC. */
interface Computer {
  readonly compute: (header: Uint8Array) => Uint8Array;
  /** Frees what it holds. */
  readonly close?: () => void;
}

/** A type of key. */
interface KeyType {
  /** Bytes of a key; absent if it may have any number. */
  readonly size?: number;
  readonly open: (secret: Uint8Array) => Computer;
}

const cipher = (name: string, size: number): KeyType => ({
  size,
  open: (secret) => cmac(name, secret),
});
const hash = (name: string): KeyType => ({ open: (secret) => keyedHash(name, secret) });

/** By chrony's names. */
const TYPES: ReadonlyMap<string, KeyType> = new Map([
  ["AES128", cipher("aes-128-cbc", 16)],
  ["AES256", cipher("aes-256-cbc", 32)],
  ["MD5", hash("md5")],
  ["SHA1", hash("sha1")],
  ["SHA256", hash("sha256")],
  ["SHA384", hash("sha384")],
  ["SHA512", hash("sha512")],
  ["SHA3-224", hash("sha3-224")],
  ["SHA3-256", hash("sha3-256")],
  ["SHA3-384", hash("sha3-384")],
  ["SHA3-512", hash("sha3-512")],
]);

/** The type of a key for which the file names none. */
const DEFAULT_TYPE = "MD5";

/** Bytes in a block of AES. */
const BLOCK = 16;

/** AES-CMAC (RFC 4493) of 48 bytes: three whole blocks. */
function cmac(name: string, secret: Uint8Array): Computer {
  // One for each MAC would cost 4 µs more.
  const cbc = createCipheriv(name, secret, new Uint8Array(BLOCK)).setAutoPadding(false);
  let last: Uint8Array = cbc.update(new Uint8Array(BLOCK));
  const subkey = doubled(last);
  const input = new Uint8Array(PACKET_SIZE);
  const compute = (header: Uint8Array) => {
    for (let i = 0; i < PACKET_SIZE; i++) input[i] = header[i]!;
    for (let i = 0; i < BLOCK; i++) {
      // The cipher would carry on from its last output: taking that away begins anew.
      input[i]! ^= last[i]!;
      input[PACKET_SIZE - BLOCK + i]! ^= subkey[i]!;
    }
    return last = cbc.update(input).subarray(PACKET_SIZE - BLOCK);
  };
  return { compute, close: () => cbc.final() };
}

/** Twice a number of GF(2^128): RFC 4493, section 2.3. */
function doubled(block: Uint8Array): Uint8Array {
  const twice = block.map((byte, i) => byte << 1 | (block[i + 1] ?? 0) >> 7);
  if (block[0]! >= 0x80) twice[BLOCK - 1]! ^= 0x87;
  return twice;
}

/** The hash of the key and the header, one after the other: RFC 5905, section 7.3. */
function keyedHash(name: string, secret: Uint8Array): Computer {
  const input = new Uint8Array(secret.length + PACKET_SIZE);
  input.set(secret);
  return {
    compute(header) {
      input.set(header.subarray(0, PACKET_SIZE), secret.length);
      return createHash(name).update(input).digest();
    },
  };
}

/** A key of one of the {@linkcode TYPES}. */
class SymmetricKey implements MessageKey, Disposable {
  readonly macSize: number;
  readonly #computer: Computer;

  constructor(readonly id: number, computer: Computer) {
    this.#computer = computer;
    this.macSize = computer.compute(new Uint8Array(PACKET_SIZE)).length;
  }

  [Symbol.dispose](): void {
    this.#computer.close?.();
  }

  sign(message: Uint8Array): void {
    const mac = this.#computer.compute(message);
    viewOf(message).setUint32(PACKET_SIZE, this.id);
    for (let i = 0, at = PACKET_SIZE + KEY_ID_SIZE; at < message.length; i++, at++) {
      message[at] = mac[i]!;
    }
  }

  verify(message: Uint8Array): boolean {
    const mac = this.#computer.compute(message);
    let difference = keyIdOf(message) ^ this.id;
    for (let i = 0, at = PACKET_SIZE + KEY_ID_SIZE; at < message.length; i++, at++) {
      difference |= message[at]! ^ mac[i]!;
    }
    return difference === 0;
  }
}

/**
 * Reads a key file of chrony's: a key a line, its ID, its type (by default MD5) and the key as
 * `ASCII:` text (the default) or `HEX:`. A line that begins with `#`, `%`, `;` or `!` is a comment.
 * Unlike chrony it leaves out no line that it does not understand.
 *
 * @param file Its bytes.
 * @returns The keys. Disposing of them frees what they hold; they are of no use then.
 * @throws {SyntaxError} if it is no such file. The message, which names no key, follows the file's
 * name and a colon.
 *
 * @example
 * ```ts
 * import { assert } from "@std/assert";
 * import { parseKeys, serve, sync } from "tsync";
 *
 * const file = "10 AES128 HEX:7EA62AE64D190114D46D5A082F948EC1\n";
 * using keys = parseKeys(new TextEncoder().encode(file));
 * const server = await serve({ hosts: ["127.0.0.1"], port: 0, keys });
 * const servers = [`127.0.0.1:${server.addresses[0]!.port}`];
 * assert((await sync({ servers, key: keys.get(10) })).synchronised);
 * await server.stop();
 * ```
 */
export function parseKeys(file: Uint8Array): Keys & Disposable {
  const keys = new Map<number, SymmetricKey>();
  // A byte a character: a key may have any but white space.
  const text = Array.from(file, (byte) => String.fromCharCode(byte)).join("");
  for (const [i, line] of text.split("\n").entries()) {
    const words = line.split(/[ \t\v\f\r]+/).filter((word) => word !== "");
    if (words.length === 0 || /^[#%;!]/.test(words[0]!)) continue;
    const where = `line ${i + 1}`;
    const key = parseKey(words, where);
    if (keys.has(key.id)) throw new SyntaxError(`${where} is another key ${key.id}`);
    keys.set(key.id, key);
  }
  if (keys.size === 0) throw new SyntaxError("there is no key in it");
  const dispose = () => keys.forEach((key) => key[Symbol.dispose]());
  return Object.assign(keys, { [Symbol.dispose]: dispose });
}

function parseKey(words: readonly string[], where: string): SymmetricKey {
  const [id = "", ...rest] = words;
  if (rest.length === 1 && TYPES.has(rest[0]!)) {
    throw new SyntaxError(`${where} ends before the key`);
  }
  if (rest.length !== 1 && rest.length !== 2) {
    throw new SyntaxError(`${where} is not an ID, a type and a key`);
  }
  if (!/^\d+$/.test(id) || Number(id) < 1 || Number(id) >= 2 ** 32) {
    throw new SyntaxError(`${where} does not begin with an ID from 1 to ${2 ** 32 - 1}`);
  }
  // In a stream, what follows a header is a key's ID or the next request.
  if (refuseRequest(Number(id) >>> 24) === null) {
    throw new SyntaxError(
      `${where} has an ID that could be the beginning of a request: choose one below ${2 ** 24}`,
    );
  }
  const [name, written] = rest.length === 1 ? [DEFAULT_TYPE, rest[0]!] : [rest[0]!, rest[1]!];
  const type = TYPES.get(name);
  if (type === undefined) {
    const known = [...TYPES.keys()].join(", ");
    throw new SyntaxError(`${where} has a key of an unknown type: expected one of ${known}`);
  }
  const secret = parseSecret(written, where);
  if (type.size !== undefined && secret.length !== type.size) {
    throw new SyntaxError(
      `${where} has a key of ${secret.length} bytes, ${name} takes ${type.size}`,
    );
  }
  return new SymmetricKey(Number(id), type.open(secret));
}

function parseSecret(written: string, where: string): Uint8Array {
  const [, encoding, text] = /^(HEX:|ASCII:)?(.*)$/s.exec(written)!;
  if (text === "") throw new SyntaxError(`${where} ends before the key`);
  if (encoding !== "HEX:") return Uint8Array.from(text!, (character) => character.charCodeAt(0));
  if (!/^(?:[\da-f]{2})+$/i.test(text!)) {
    throw new SyntaxError(`${where} has a key that is not a whole number of bytes in hexadecimal`);
  }
  return Uint8Array.from(text!.match(/../g)!, (byte) => parseInt(byte, 16));
}
