/**
 * Who is answered, and how much. Pure: addresses and times are handed in.
 *
 * @module
 */

import { BlockList, isIP } from "node:net";
import { SECOND } from "../ntp/timestamp.ts";

/** Why a client is not answered, or no longer. */
export type AdmissionRefusal = "denied" | "max-clients" | "max-clients-per-address" | "rate";

/** What a server allows. */
export interface Limits {
  /** Prefixes such as `192.0.2.0/24` that are answered. Default: all. */
  allow?: readonly string[] | undefined;
  /** Prefixes that are not. Of all that match an address, the longest decides. Default: none. */
  deny?: readonly string[] | undefined;
  /** Open connections. Default 10000. */
  maxClients?: number | undefined;
  /** Open connections from one address. Default 1000. */
  maxClientsPerAddress?: number | undefined;
  /** Requests a second from one address; 0: any number. Default 1000. */
  rate?: number | undefined;
}

/** Seconds' worth of requests that may come at once. */
const BURST = 4;

/** Seconds that a request can have waited to be read. What is older says that the clock was set back. */
const LATE = 15;

/** Addresses without a connection that are remembered: anybody can make them up. */
const STRANGERS = 50_000;

/** Nanoseconds between two kisses by datagram to one address. */
const KISS_INTERVAL = SECOND;

/** What is known of one address. */
export interface Client {
  readonly address: string;
  connections: number;
  /** Requests that it may make at once. */
  tokens: number;
  /** Nanoseconds: when that was true. */
  since: bigint;
  /** Nanoseconds: when it was last told by datagram that it asks too often. */
  kissed: bigint;
}

/** Keeps count of connections and requests, and judges new ones. */
export class Admission {
  readonly #rules: readonly Rule[];
  readonly #unmatched: boolean;
  readonly #maxClients: number;
  readonly #maxClientsPerAddress: number;
  readonly #rate: number;
  readonly #clients = new Map<string, Client>();
  #connections = 0;

  /**
   * @throws {SyntaxError} if a prefix is none.
   * @throws {RangeError} if a number is negative or no integer.
   */
  constructor(limits: Limits = {}) {
    const { allow = [], deny = [] } = limits;
    const rules = [
      ...deny.map((text): Rule => ({ ...parsePrefix(text), allows: false })),
      ...allow.map((text): Rule => ({ ...parsePrefix(text), allows: true })),
    ];
    // The sort is stable: where a prefix is both, it is denied.
    this.#rules = rules.sort((a, b) => b.bits - a.bits);
    // Whoever allows some, denies all others.
    this.#unmatched = allow.length === 0;
    this.#maxClients = whole("maxClients", limits.maxClients ?? 10_000);
    this.#maxClientsPerAddress = whole(
      "maxClientsPerAddress",
      limits.maxClientsPerAddress ?? 1000,
    );
    this.#rate = whole("rate", limits.rate ?? 1000);
  }

  /** Open connections. */
  get connections(): number {
    return this.#connections;
  }

  /** Addresses that are remembered. */
  get addresses(): number {
    return this.#clients.size;
  }

  /** Is this address answered at all? */
  allows(address: string): boolean {
    if (this.#rules.length === 0) return this.#unmatched;
    const plain = unmapped(address);
    for (const { allows, matches } of this.#rules) {
      if (matches(plain)) return allows;
    }
    return this.#unmatched;
  }

  /**
   * A connection has come.
   *
   * @param now Nanoseconds.
   * @returns The client, to be given to {@linkcode request} and {@linkcode disconnect}, or why
   * it is not admitted.
   */
  connect(address: string, now: bigint): Client | AdmissionRefusal {
    if (!this.allows(address)) return "denied";
    if (this.#connections >= this.#maxClients) return "max-clients";
    const plain = unmapped(address);
    const client = this.#clients.get(plain) ?? this.#newClient(plain, now);
    if (client.connections >= this.#maxClientsPerAddress) return "max-clients-per-address";
    this.#clients.set(plain, client);
    client.connections++;
    this.#connections++;
    return client;
  }

  #newClient(address: string, now: bigint): Client {
    return { address, connections: 0, tokens: this.#rate * BURST, since: now, kissed: 0n };
  }

  /**
   * A request has come without a connection.
   *
   * @param address The client's, IPv4 never as mapped.
   * @param now Nanoseconds.
   * @returns Whether it is answered, told that it asks too often (not more
   * than once a second), or ignored, and why.
   */
  datagram(address: string, now: bigint): "answer" | "kiss" | "denied" | "rate" {
    if (!this.allows(address)) return "denied";
    if (this.#rate === 0) return "answer";
    let client = this.#clients.get(address);
    if (client === undefined) {
      if (this.#clients.size >= STRANGERS) this.#forgetOldest();
      this.#clients.set(address, client = this.#newClient(address, now));
    }
    if (this.request(client, now)) return "answer";
    if (now - client.kissed < KISS_INTERVAL && now >= client.kissed) return "rate";
    client.kissed = now;
    return "kiss";
  }

  #forgetOldest(): void {
    for (const [address, { connections }] of this.#clients) {
      if (connections > 0) continue;
      this.#clients.delete(address);
      return;
    }
  }

  /** A connection has gone. */
  disconnect(client: Client): void {
    client.connections--;
    this.#connections--;
  }

  /**
   * A request has come.
   *
   * @param now Nanoseconds. A clock that was set back adds nothing.
   * @returns Whether it is to be answered.
   */
  request(client: Client, now: bigint): boolean {
    if (this.#rate === 0) return true;
    const elapsed = Number(now - client.since) / 1e9;
    // What waited to be read while others were answered is late, and adds nothing a second time.
    if (elapsed > 0 || elapsed < -LATE) client.since = now;
    const full = this.#rate * BURST;
    client.tokens = Math.min(full, client.tokens + Math.max(0, elapsed) * this.#rate);
    if (client.tokens < 1) return false;
    client.tokens--;
    return true;
  }

  /**
   * Forgets addresses that have no connection and may make all requests of a
   * burst again. To be called now and then.
   */
  forget(now: bigint): void {
    for (const [address, { connections, since }] of this.#clients) {
      const elapsed = Number(now - since) / 1e9;
      if (connections === 0 && (elapsed >= BURST || elapsed < 0)) this.#clients.delete(address);
    }
  }
}

interface Rule extends Prefix {
  readonly allows: boolean;
}

/** Addresses that begin alike. */
export interface Prefix {
  /** How many bits are alike. */
  readonly bits: number;
  readonly matches: (address: string) => boolean;
}

/** An IPv4 address is one, however the socket that it came by calls it. */
export function unmapped(address: string): string {
  return /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1] ?? address;
}

/**
 * Reads a prefix such as `192.0.2.0/24` or `2001:db8::/32`; an address alone is one of full length.
 *
 * @throws {SyntaxError} if it is none.
 */
export function parsePrefix(text: string): Prefix {
  const [, written = "", length] = /^(.*?)(?:\/(\d{1,3}))?$/.exec(text)!;
  // Clients with mapped addresses are taken for what they are, and so are prefixes of such.
  const mapped = unmapped(written) !== written && (length === undefined || Number(length) >= 96);
  const network = mapped ? unmapped(written) : written;
  const version = written.includes("%") ? 0 : isIP(network);
  const most = version === 4 ? 32 : 128;
  const bits = length === undefined ? most : Number(length) - (mapped ? 96 : 0);
  if (version === 0 || bits > most) {
    throw new SyntaxError(
      `cannot use "${text}" as a prefix: expected an address and a length, such as 192.0.2.0/24 or 2001:db8::/32`,
    );
  }
  const list = new BlockList();
  list.addSubnet(network, bits, version === 4 ? "ipv4" : "ipv6");
  // A list of IPv6 matches mapped IPv4 addresses too, and the other way round.
  const matches = (address: string) =>
    isIP(address) === version && list.check(address, version === 4 ? "ipv4" : "ipv6");
  return { bits, matches };
}

function whole(name: string, value: number): number {
  if (Number.isInteger(value) && value >= 0) return value;
  throw new RangeError(
    `cannot serve: ${name} must be an integer of 0 or more: current value is ${value}`,
  );
}
