/**
 * Who is answered, and how much. Pure: addresses and times are handed in.
 *
 * @module
 */

import { ipVersion } from "../net/address.ts";
import { net } from "../net/node.ts";
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
  /** Open connections from one address, or /64 of IPv6. Default 1000. */
  maxClientsPerAddress?: number | undefined;
  /** Requests a second from one address, or /64 of IPv6, over TCP and as many over UDP; 0: any number. Default 1000. */
  rate?: number | undefined;
}

/** Seconds' worth of requests that may come at once. */
const BURST = 4;

/** Nanoseconds: who has been idle for so long may make all of them again. */
const GENERATION = BigInt(BURST) * SECOND;

/** Seconds that a request can have waited to be read. What is older says that the clock was set back. */
const LATE = 15;

/** Accounts without a connection that are kept at most: anybody can make addresses up. */
const MOST_IDLE = 50_000;

/** Of datagrams that are too many, the share that is answered: who else writes an address must not silence it. */
const LEAK = 1 / 4;

/** And the share that may be told so: it might be obeyed by one who did not ask too often. */
const KISSES = 1 / 16;

/** Nanoseconds between two kisses by datagram to one address. */
const KISS_INTERVAL = SECOND;

/** How many requests may still come. */
interface Account {
  /** Requests that may come at once. */
  tokens: number;
  /** Nanoseconds: when that was true. */
  since: bigint;
}

/** Who has connections: an address, or all of an IPv6 network. */
export interface Client extends Account {
  /** As of {@linkcode accountOf}. */
  readonly name: string;
  connections: number;
}

/** Who sends datagrams, or is said to. */
interface Sender extends Account {
  /** Nanoseconds: when it was last told that it asks too often. */
  kissed: bigint;
}

/**
 * Keeps count of connections and requests, and judges new ones. Requests by
 * TCP and by UDP have accounts of their own: anybody can write an address on a datagram.
 */
export class Admission {
  readonly #rules: readonly Rule[];
  readonly #unmatched: boolean;
  readonly #maxClients: number;
  readonly #maxClientsPerAddress: number;
  readonly #rate: number;
  readonly #burst: number;
  readonly #random: () => number;
  /** Those with connections, and those whose last has gone. */
  readonly #clients = new Map<string, Client>();
  readonly #left = new Generations<Client>();
  readonly #senders = new Generations<Sender>();
  #connections = 0;

  /**
   * @param random From 0 to less than 1: picks from the datagrams that are too many. Default: none
   * of them is answered.
   * @throws {SyntaxError} if a prefix is none.
   * @throws {RangeError} if a number is negative or no integer.
   */
  constructor(limits: Limits = {}, random: () => number = () => 1) {
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
    this.#burst = this.#rate * BURST;
    this.#random = random;
  }

  /** Open connections. */
  get connections(): number {
    return this.#connections;
  }

  /** Accounts that are kept. */
  get accounts(): number {
    return this.#clients.size + this.#left.size + this.#senders.size;
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
    const name = accountOf(address);
    const client = this.#clients.get(name) ?? this.#left.take(name) ??
      { name, connections: 0, tokens: this.#burst, since: now };
    if (client.connections >= this.#maxClientsPerAddress) return "max-clients-per-address";
    this.#clients.set(name, client);
    client.connections++;
    this.#connections++;
    return client;
  }

  /**
   * A request has come without a connection.
   *
   * @param now Nanoseconds.
   * @returns Whether it is answered, told that it asks too often (not more
   * than once a second), or ignored, and why.
   */
  datagram(address: string, now: bigint): "answer" | "kiss" | "denied" | "rate" {
    if (!this.allows(address)) return "denied";
    if (this.#rate === 0) return "answer";
    const name = accountOf(address);
    let sender = this.#senders.get(name);
    if (sender === undefined) {
      this.#senders.set(name, sender = { tokens: this.#burst, since: now, kissed: 0n });
    }
    if (this.request(sender, now)) return "answer";
    const picked = this.#random();
    if (picked < LEAK) return "answer";
    if (picked >= LEAK + KISSES) return "rate";
    if (now - sender.kissed < KISS_INTERVAL && now >= sender.kissed) return "rate";
    sender.kissed = now;
    return "kiss";
  }

  /** A connection has gone. */
  disconnect(client: Client): void {
    client.connections--;
    this.#connections--;
    if (client.connections > 0) return;
    this.#clients.delete(client.name);
    this.#left.set(client.name, client);
  }

  /**
   * A request has come.
   *
   * @param now Nanoseconds. A clock that was set back adds nothing.
   * @returns Whether it is to be answered.
   */
  request(account: Account, now: bigint): boolean {
    if (this.#rate === 0) return true;
    const elapsed = Number(now - account.since) / 1e9;
    // What waited to be read while others were answered is late, and adds nothing a second time.
    if (elapsed > 0 || elapsed < -LATE) account.since = now;
    account.tokens = Math.min(this.#burst, account.tokens + Math.max(0, elapsed) * this.#rate);
    if (account.tokens < 1) return false;
    account.tokens--;
    return true;
  }

  /**
   * Forgets who has no connection and may make all requests of a burst again.
   * To be called now and then.
   */
  forget(now: bigint): void {
    this.#left.forget(now);
    this.#senders.forget(now);
  }
}

/**
 * Accounts, of which those go that nobody asks for. They go all together, a
 * generation at a time: to look for them one by one would take longer the more there are.
 */
class Generations<T> {
  /** What was used since this generation began. */
  #young = new Map<string, T>();
  /** What was used in the one before, and not since. */
  #old = new Map<string, T>();
  /** Nanoseconds: when it was first seen; `null` if it was not yet. */
  #since: bigint | null = null;

  get size(): number {
    return this.#young.size + this.#old.size;
  }

  get(name: string): T | undefined {
    const young = this.#young.get(name);
    if (young !== undefined) return young;
    const old = this.#old.get(name);
    if (old === undefined) return undefined;
    this.#old.delete(name);
    this.set(name, old);
    return old;
  }

  set(name: string, account: T): void {
    if (this.#young.size >= MOST_IDLE / 2) this.#turn();
    this.#young.set(name, account);
  }

  /** Gets it, and keeps it no longer. */
  take(name: string): T | undefined {
    const account = this.get(name);
    this.#young.delete(name);
    return account;
  }

  /** @param now Nanoseconds. Where the clock was set back, a generation begins again. */
  forget(now: bigint): void {
    if (this.#since !== null && now - this.#since >= GENERATION) this.#turn();
    if (this.#since === null || now < this.#since) this.#since = now;
  }

  #turn(): void {
    this.#old = this.#young;
    this.#young = new Map();
    this.#since = null;
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

/** Addresses whose first 64 bits strangers share: link-local ones, and IPv4 behind a translator (NAT64). */
const SINGLE = /^(?:fe[89ab][0-9a-f]|64:ff9b):/i;

/**
 * Whose account an address is on, however it is spelled: of IPv6 that of all
 * which begin with the same 64 bits, since a host has as many of these as it likes.
 */
export function accountOf(address: string): string {
  if (!address.includes(":")) return address;
  if (address.includes(".")) return unmapped(address);
  const groups = address.includes("::") ? expand(address) : address;
  return SINGLE.test(groups) ? groups : groups.split(":", 4).join(":");
}

/** Writes out the groups of an IPv6 address that `::` stands for. */
function expand(address: string): string {
  const missing = 9 - address.split(":").length;
  const [head, tail] = address.split("::");
  return `${head || "0"}:${"0:".repeat(missing)}${tail || "0"}`;
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
  const version = written.includes("%") ? 0 : ipVersion(network);
  const most = version === 4 ? 32 : 128;
  const bits = length === undefined ? most : Number(length) - (mapped ? 96 : 0);
  if (version === 0 || bits > most) {
    throw new SyntaxError(
      `cannot use "${text}" as a prefix: expected an address and a length, such as 192.0.2.0/24 or 2001:db8::/32`,
    );
  }
  const list = new (net().BlockList)();
  list.addSubnet(network, bits, version === 4 ? "ipv4" : "ipv6");
  // A list of IPv6 matches mapped IPv4 addresses too, and the other way round.
  const matches = (address: string) =>
    ipVersion(address) === version && list.check(address, version === 4 ? "ipv4" : "ipv6");
  return { bits, matches };
}

function whole(name: string, value: number): number {
  if (Number.isInteger(value) && value >= 0) return value;
  throw new RangeError(
    `cannot serve: ${name} must be an integer of 0 or more: current value is ${value}`,
  );
}
