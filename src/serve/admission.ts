/**
 * Decides which clients are served, and how often. Pure: addresses and times
 * are passed in.
 *
 * @module
 */

import { expand, ipVersion } from "../net/address.ts";
import { net } from "../net/node.ts";
import { SECOND } from "../ntp/timestamp.ts";

/** Why a client is not, or no longer, served. */
export type AdmissionRefusal = "denied" | "max-clients" | "max-clients-per-address" | "rate";

/** Which clients a server serves, and how often. */
export interface Limits {
  /** Prefixes to serve, such as `192.0.2.0/24`, and no other addresses. Default: all. */
  allow?: readonly string[] | undefined;
  /** Prefixes not to serve. Of all that match an address, the longest decides. Default: none. */
  deny?: readonly string[] | undefined;
  /** Most open connections. Default 10000. */
  maxClients?: number | undefined;
  /** Most open connections from one IPv4 address or IPv6 /64. Default 1000. */
  maxClientsPerAddress?: number | undefined;
  /**
   * Most requests per second from one IPv4 address or IPv6 /64, over TCP and again over UDP; 0 for
   * no limit. Four seconds' worth may come at once. Default 1000.
   */
  rate?: number | undefined;
}

/** What {@linkcode Limits} are by default. */
export const DEFAULT_LIMITS = {
  maxClients: 10_000,
  maxClientsPerAddress: 1000,
  rate: 1000,
} as const;

/** Seconds' worth of requests that may come at once. */
const BURST_SECONDS = 4;

/** After this long without requests, a client may send a whole burst again. */
const GENERATION_NS = BigInt(BURST_SECONDS) * SECOND;

/** The longest that a request may have waited to be read. If longer, the clock was set back. */
const MAX_LATE_SECONDS = 15;

/** The most accounts kept without a connection: source addresses of datagrams can be forged. */
const MAX_IDLE_ACCOUNTS = 50_000;

/** Share of excess datagrams that is answered: forged ones must not cut off the address's owner. */
const LEAK_SHARE = 1 / 4;

/** Share of them that may get a kiss-o'-death: its receiver may not be who asks too often. */
const KISS_SHARE = 1 / 16;

/** The shortest time between two kisses by datagram to one address. */
const KISS_INTERVAL_NS = SECOND;

/** A token bucket. */
interface Account {
  /** Requests that may come at once. */
  tokens: number;
  /** When {@linkcode tokens} was updated: nanoseconds. */
  since: bigint;
}

/** An address, or an IPv6 network, that has connections. */
export interface Client extends Account {
  /** As {@linkcode accountOf} returns it. */
  readonly name: string;
  connections: number;
}

/** An address, or an IPv6 network, from which datagrams seem to come. */
interface Sender extends Account {
  /** When it was last sent a kiss: nanoseconds. */
  kissed: bigint;
}

/**
 * Counts connections and requests, and decides about new ones. TCP and UDP
 * have separate accounts, since a datagram's source address can be forged.
 */
export class Admission {
  readonly #rules: readonly Rule[];
  readonly #unmatched: boolean;
  readonly #maxClients: number;
  readonly #maxClientsPerAddress: number;
  readonly #rate: number;
  readonly #burst: number;
  readonly #random: () => number;
  /** Those with connections. */
  readonly #clients = new Map<string, Client>();
  /** Those whose last connection was closed. */
  readonly #left = new Generations<Client>();
  readonly #senders = new Generations<Sender>();
  #connections = 0;

  /**
   * @param random From 0 to less than 1: picks the excess datagrams to answer. Default: none.
   * @throws {SyntaxError} if a prefix is malformed.
   * @throws {RangeError} if a number is negative or not an integer.
   */
  constructor(limits: Limits = {}, random: () => number = () => 1) {
    const { allow = [], deny = [] } = limits;
    const rules = [
      ...deny.map((text): Rule => ({ ...parsePrefix(text), allows: false })),
      ...allow.map((text): Rule => ({ ...parsePrefix(text), allows: true })),
    ];
    // The sort is stable: a prefix in both lists is denied.
    this.#rules = rules.sort((a, b) => b.bits - a.bits);
    // Allowing some denies all others.
    this.#unmatched = allow.length === 0;
    const { maxClients, maxClientsPerAddress, rate } = DEFAULT_LIMITS;
    this.#maxClients = whole("maxClients", limits.maxClients ?? maxClients);
    this.#maxClientsPerAddress = whole(
      "maxClientsPerAddress",
      limits.maxClientsPerAddress ?? maxClientsPerAddress,
    );
    this.#rate = whole("rate", limits.rate ?? rate);
    this.#burst = this.#rate * BURST_SECONDS;
    this.#random = random;
  }

  get connections(): number {
    return this.#connections;
  }

  get accounts(): number {
    return this.#clients.size + this.#left.size + this.#senders.size;
  }

  /** Whether an address is served at all. */
  allows(address: string): boolean {
    if (this.#rules.length === 0) return this.#unmatched;
    const plain = unmapped(address);
    for (const { allows, matches } of this.#rules) {
      if (matches(plain)) return allows;
    }
    return this.#unmatched;
  }

  /**
   * Decides about a new connection.
   *
   * @param now Nanoseconds.
   * @returns The client, for {@linkcode request} and {@linkcode disconnect}, or why it is refused.
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
   * Decides about a datagram.
   *
   * @param now Nanoseconds.
   * @returns Whether to answer it, to send a kiss-o'-death (at most once a second), or to ignore it
   * and why.
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
    if (picked < LEAK_SHARE) return "answer";
    if (picked >= LEAK_SHARE + KISS_SHARE) return "rate";
    if (now - sender.kissed < KISS_INTERVAL_NS && now >= sender.kissed) return "rate";
    sender.kissed = now;
    return "kiss";
  }

  /** A connection was closed. */
  disconnect(client: Client): void {
    client.connections--;
    this.#connections--;
    if (client.connections > 0) return;
    this.#clients.delete(client.name);
    this.#left.set(client.name, client);
  }

  /**
   * Decides about a request.
   *
   * @param now Nanoseconds. Setting the clock back adds no tokens.
   * @returns Whether to answer it.
   */
  request(account: Account, now: bigint): boolean {
    if (this.#rate === 0) return true;
    const elapsed = Number(now - account.since) / 1e9;
    // A request read late, after newer ones of other connections, must not add tokens twice.
    if (elapsed > 0 || elapsed < -MAX_LATE_SECONDS) account.since = now;
    account.tokens = Math.min(this.#burst, account.tokens + Math.max(0, elapsed) * this.#rate);
    if (account.tokens < 1) return false;
    account.tokens--;
    return true;
  }

  /**
   * Forgets accounts without a connection that may send a whole burst again. Call it regularly.
   *
   * @param now Nanoseconds.
   */
  forget(now: bigint): void {
    this.#left.forget(now);
    this.#senders.forget(now);
  }
}

/**
 * Accounts that are forgotten when unused, a whole generation at a time: looking for them one by one
 * would take longer the more there are.
 */
class Generations<T> {
  /** Used since this generation began. */
  #young = new Map<string, T>();
  /** Used in the previous generation and not since. */
  #old = new Map<string, T>();
  /** When this generation began, in nanoseconds; `null` before the first {@linkcode forget}. */
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
    if (this.#young.size >= MAX_IDLE_ACCOUNTS / 2) this.#advance();
    this.#young.set(name, account);
  }

  /** Gets an account and removes it. */
  take(name: string): T | undefined {
    const account = this.get(name);
    this.#young.delete(name);
    return account;
  }

  /** @param now Nanoseconds. If the clock was set back, the generation starts over. */
  forget(now: bigint): void {
    if (this.#since !== null && now - this.#since >= GENERATION_NS) this.#advance();
    if (this.#since === null || now < this.#since) this.#since = now;
  }

  #advance(): void {
    this.#old = this.#young;
    this.#young = new Map();
    this.#since = null;
  }
}

interface Rule extends Prefix {
  readonly allows: boolean;
}

/** A range of addresses with the same leading bits. */
interface Prefix {
  /** The number of those bits. */
  readonly bits: number;
  readonly matches: (address: string) => boolean;
}

/** Converts an IPv4-mapped address, as IPv6 sockets report it, to IPv4. @returns Others as they are. */
function unmapped(address: string): string {
  return /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1] ?? address;
}

/** Addresses whose first 64 bits strangers share: link-local ones, and IPv4 behind NAT64. */
const SINGLE = /^(?:fe[89ab][0-9a-f]|64:ff9b):/i;

/**
 * The name of an address's account, the same for all its spellings. In IPv6 it
 * is the first 64 bits, since a host may have any number of addresses in a /64.
 */
export function accountOf(address: string): string {
  if (!address.includes(":")) return address;
  if (address.includes(".")) return unmapped(address);
  const groups = expand(address);
  return SINGLE.test(groups) ? groups : groups.split(":", 4).join(":");
}

/**
 * Parses a prefix such as `192.0.2.0/24` or `2001:db8::/32`, or a single address.
 *
 * @throws {SyntaxError} if it is neither.
 */
export function parsePrefix(text: string): Prefix {
  const [, written = "", length] = /^(.*?)(?:\/(\d{1,3}))?$/.exec(text)!;
  // Clients with mapped addresses count as IPv4, and so must prefixes of such addresses.
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
  // A block list would also match an IPv4-mapped address against IPv4, and the reverse.
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
