/**
 * The two ways to ask one server: over a connection, and by datagrams.
 *
 * @module
 */

import {
  formatAddress,
  type ProxyAddress,
  type ServerAddress,
  type SocketAddress,
} from "../net/address.ts";
import {
  type Channel,
  ChannelError,
  type Connected,
  connectFirst,
  streamChannel,
} from "../net/channel.ts";
import { exchangeDatagrams, LostDatagram } from "../net/datagram_exchange.ts";
import { errorText, isUnknownHost, TlsError } from "../net/errors.ts";
import type { Connection } from "../net/network.ts";
import { type MessageKey, messageSize } from "../ntp/mac.ts";
import { encodeRequest, PACKET_SIZE, VERSION } from "../ntp/packet.ts";
import { type Deadline, race } from "./deadline.ts";
import type { Environment } from "./environment.ts";
import { LostRequests, Pipeline, type Reply } from "./pipeline.ts";
import type { Progress, Step } from "./plan.ts";

/** What one burst with a server leaves to the next. */
export interface KeptConnection {
  /** `null` if there is none, and while a burst uses it. */
  connection: Connection | null;
  /** The address that answered: another one may be another machine, with another clock. */
  address: SocketAddress | null;
}

/** Whom to ask, and by what means. */
export interface Target {
  readonly server: ServerAddress;
  /** What stands between, for the sentences; `null` if nothing does. */
  readonly proxy: ProxyAddress | null;
  /** Use only addresses of this family. */
  readonly family: 4 | 6 | undefined;
  /** Authorities, as PEM text, that may have signed the certificate of a server with TLS. */
  readonly ca: string | undefined;
  /** The key of the messages' MACs; `null` if they have none. */
  readonly key: MessageKey | null;
  /** The connection to go on with, and to keep. `undefined`: one is opened, and closed at the end. */
  readonly kept: KeptConnection | undefined;
  /** May requests be sent before earlier ones are answered, if the path is a long one? */
  readonly maySendAhead: boolean;
  readonly environment: Environment;
  /** When to give up: what is too late fails with its reason. */
  readonly deadline: Deadline;
}

/** Bytes of a request, and of a reply. */
function sizeFor({ key }: Target): number {
  return key === null ? PACKET_SIZE : messageSize(key, VERSION);
}

/** A way to ask one server. */
export abstract class Conversation implements Progress {
  /** The address that is asked; `null` until the name has been resolved. */
  address: string | null = null;
  /** What the server sent last. */
  reply: Uint8Array = new Uint8Array();

  constructor(readonly target: Target) {}

  get isFar(): boolean | null {
    return false;
  }

  get roundTrip(): number {
    return 0;
  }

  get inFlight(): number {
    return 0;
  }

  /** Gets ready for an exchange, also after one has failed. */
  abstract begin(): Promise<void>;

  /**
   * Waits for the next reply, having sent a request, which holds a nonce of its own, unless one is
   * in flight. On a long path it sends more meanwhile, as `step` says.
   */
  abstract exchange(step: Step): Promise<Reply>;

  /** Closes what {@linkcode begin} has opened, or keeps it, if that is wanted and all went well. */
  abstract end(isGood: boolean): void;
}

/** A server that cannot even be talked to. The message begins with a verb. */
export class NoConnection extends Error {}

function noConnection(error: unknown, target: Target, address: string | null): NoConnection {
  const { server: { name, transport }, family } = target;
  if (address === null) {
    const what = isUnknownHost(error)
      ? `is not a known host${family === undefined ? "" : ` with an IPv${family} address`}`
      : `could not be looked up: ${errorText(error)}`;
    return new NoConnection(what, { cause: error });
  }
  const where = address === name ? "" : ` at ${address}`;
  const program = transport === "ntp" ? "an NTP server" : "`tsync serve`";
  const isRefused = error instanceof Deno.errors.ConnectionRefused;
  const hint = isRefused ? `; is ${program} running there?` : "";
  const text = `cannot be reached${where}: ${errorText(error)}${hint}`;
  return new NoConnection(text, { cause: error });
}

async function resolve(target: Target): Promise<SocketAddress[]> {
  const { server: { hostname, port }, family, environment: { network }, deadline } = target;
  try {
    const found = await race(network.resolve(hostname, family), deadline.signal);
    if (found.length === 0) throw Object.assign(new Error("no address"), { code: "ENOTFOUND" });
    return found.map((hostname) => ({ hostname, port }));
  } catch (error) {
    deadline.signal.throwIfAborted();
    throw noConnection(error, target, null);
  }
}

/** Seconds in which a kept connection must answer: it may lead nowhere any more. */
const KEPT_ANSWER_SECONDS = 1;

/** Asks over a connection, with or without TLS. */
export class StreamConversation extends Conversation {
  #connection: Connection | undefined;
  #channel: Channel | undefined;
  /** `undefined` before a connection, and after it. */
  #pipeline: Pipeline | undefined;
  #maySendAhead: boolean;
  /** How often it broke after requests had been sent ahead: the server may not bear that. */
  #broken = 0;
  #cancel = () => {};

  constructor(target: Target) {
    super(target);
    this.#maySendAhead = target.maySendAhead;
  }

  override get isFar(): boolean | null {
    return this.#maySendAhead ? this.#pipeline?.isFar ?? null : false;
  }

  override get roundTrip(): number {
    return this.#pipeline?.roundTrip ?? 0;
  }

  override get inFlight(): number {
    return this.#pipeline?.inFlight ?? 0;
  }

  async begin(): Promise<void> {
    const { target } = this;
    const { kept, key, environment, deadline: { signal } } = target;
    const before = kept?.connection ?? null;
    // If it breaks, the next attempt opens another.
    if (kept !== undefined) kept.connection = null;
    const { connection, roundTrip } = before === null
      ? await this.#open()
      : { connection: before, roundTrip: 0 };
    this.#connection = connection;
    this.#channel = streamChannel(connection, environment.clock, signal, sizeFor(target));
    this.#pipeline = new Pipeline(this.#channel, environment, key, roundTrip, this.#maySendAhead);
    this.address = formatAddress(this.#channel.address);
    this.reply = this.#channel.reply;
    if (before === null) return;
    this.#cancel = environment.timers.after(KEPT_ANSWER_SECONDS, () => connection.close());
  }

  async exchange(step: Step): Promise<Reply> {
    try {
      const reply = await this.#pipeline!.exchange(step);
      this.#cancel();
      return reply;
    } catch (error) {
      if (error instanceof LostRequests) this.#maySendAhead = false;
      throw error;
    }
  }

  end(isGood: boolean): void {
    const { kept } = this.target;
    this.#cancel();
    if (!isGood && this.#pipeline!.hasSentAhead && ++this.#broken > 1) this.#maySendAhead = false;
    this.#pipeline = undefined;
    if (!isGood || kept === undefined) return this.#channel!.close();
    this.#channel!.release();
    kept.connection = this.#connection!;
    kept.address = this.#channel!.address;
  }

  async #open(): Promise<Connected> {
    const { server, kept, environment, deadline: { signal } } = this.target;
    const { network, clock, timers } = environment;
    const isTls = server.transport === "tls";
    const addresses = await resolve(this.target);
    this.address = formatAddress(addresses[0]!);
    // The address that answered before goes first.
    const isKept = ({ hostname }: SocketAddress) => Number(hostname === kept?.address?.hostname);
    addresses.sort((a, b) => isKept(b) - isKept(a));
    try {
      const connected = await connectFirst(network, addresses, clock, timers, signal, isTls);
      if (isTls) await this.#startTls(connected.connection);
      return connected;
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof TlsError || error instanceof ChannelError) throw error;
      throw noConnection(error, this.target, this.address);
    }
  }

  async #startTls(connection: Connection): Promise<void> {
    const { server: { hostname }, ca, deadline } = this.target;
    try {
      await race(connection.startTls!({ hostname, ca }), deadline.signal);
    } catch (error) {
      connection.close();
      if (error instanceof TlsError) throw error;
      const how = error instanceof Deno.errors.UnexpectedEof
        ? "closed the connection in the TLS handshake"
        : `broke the connection in the TLS handshake (${errorText(error)})`;
      throw new ChannelError(`${how}; does it speak TLS?`, { cause: error });
    }
  }
}

/**
 * Asks by datagrams. What gets lost is sent again, to the next address as long
 * as none has answered, and afterwards only to the one that has.
 */
export class DatagramConversation extends Conversation {
  override readonly reply: Uint8Array = new Uint8Array(sizeFor(this.target));
  readonly #request = new Uint8Array(this.reply.length);
  /** The addresses to ask, the next one first. */
  #candidates: SocketAddress[] = [];

  async begin(): Promise<void> {
    const { kept } = this.target;
    if (this.#candidates.length > 0) return;
    this.#candidates = kept?.address ? [kept.address] : await resolve(this.target);
  }

  async exchange(): Promise<Reply> {
    const { kept, key, environment, deadline: { signal } } = this.target;
    const { network, clock, timers } = environment;
    const [request, reply] = [this.#request, this.reply];
    for (;;) {
      const [to, ...others] = this.#candidates as [SocketAddress, ...SocketAddress[]];
      this.address = formatAddress(to);
      const nonce = environment.nonce();
      encodeRequest(request, nonce);
      key?.sign(request);
      try {
        const exchanging = [network, to, request, reply, key, clock, timers, signal] as const;
        const stamps = await exchangeDatagrams(...exchanging);
        this.#candidates = [to];
        if (kept !== undefined) kept.address = to;
        return { ...stamps, nonce };
      } catch (error) {
        signal.throwIfAborted();
        // An address that was silent gets another turn; one that refuses does not.
        this.#candidates = error instanceof LostDatagram ? [...others, to] : others;
        if (this.#candidates.length === 0) throw noConnection(error, this.target, this.address);
      }
    }
  }

  end(): void {}
}
