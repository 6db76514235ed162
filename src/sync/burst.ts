/**
 * One server: find it, talk to it, and bring home what its exchanges prove.
 *
 * @module
 */

import { type Clock, type CrossTimestamp, crossTimestamp, type Timers } from "../clock/clock.ts";
import { type Bounds, intersect } from "../estimate/envelope.ts";
import type { Exchange } from "../estimate/exchange.ts";
import { formatAddress, type ServerAddress, type SocketAddress } from "../net/address.ts";
import { type Channel, ChannelError, connectFirst, streamChannel } from "../net/channel.ts";
import type { Connection, Network, Stamper, Stamps } from "../net/network.ts";
import { looksLikeTls } from "../net/deno/tls.ts";
import { errorText, isUnknownHost, TlsError } from "../net/errors.ts";
import { exchangeDatagrams, LostDatagram } from "../net/datagram_exchange.ts";
import { encodeRequest, type Packet, PACKET_SIZE } from "../ntp/packet.ts";
import {
  fromTimestamp,
  nanoseconds,
  timestampDifference,
  toNanoseconds,
} from "../ntp/timestamp.ts";
import { judgeReply, kissCode, rejectionText, type ReplyRejection } from "../ntp/validation.ts";

/** The world outside, as far as measuring needs it. */
export interface Environment {
  readonly clock: Clock;
  readonly network: Network;
  readonly timers: Timers;
  /** 64 bits that nobody can guess. */
  readonly nonce: () => bigint;
}

/** How to ask a server. */
export interface MeasureOptions {
  /** Exchanges to make, beside one to warm up. */
  readonly samples: number;
  /** Seconds for all of it, from the look-up of the name on. What was answered by then counts. */
  readonly timeout: number;
  /** Which addresses to use. */
  readonly family: 4 | 6 | undefined;
  /** Authorities, as PEM text, that may have signed the certificate of a server with TLS. */
  readonly ca: string | undefined;
  /** Ends it; the promise is rejected with its reason. */
  readonly signal: AbortSignal;
  /** Has the last burst's connection, if it is still there, and keeps it. Default: it is closed. */
  readonly kept?: KeptConnection | undefined;
  /** Told after each exchange how many of this burst count. */
  readonly onSample: (done: number) => void;
}

/** What outlives a burst, for the next one. */
export interface KeptConnection {
  connection: Connection | null;
  /** Who answered: another address of the same name may be another machine, with another clock. */
  address: SocketAddress | null;
}

/** What a server's exchanges prove. */
export interface Measurement {
  readonly status: "measured";
  readonly address: string;
  /** T1 and T4 as the clock's monotonic timeline. */
  readonly exchanges: readonly Exchange[];
  /** The offset from the clock's monotonic timeline to the server's time. */
  readonly bounds: Bounds;
  /** The last reply. */
  readonly packet: Packet;
  /** The client's clock before the first exchange. */
  readonly start: CrossTimestamp;
  /** Who took T4: the kernel, if it did each time. */
  readonly stamps: Stamper;
  /** How many replies were not believed, by reason. */
  readonly rejections: ReadonlyMap<ReplyRejection, number>;
  /** Why there is no more of it. */
  readonly failure: Failure | null;
}

/** Why there is nothing to say about a server. */
export interface Failure {
  /** Did it not answer, or not in a way that can be believed? */
  readonly status: "unreachable" | "invalid";
  /** The address that was tried last, if its name is known at all. */
  readonly address: string | null;
  /** A sentence that begins with the server's name. */
  readonly error: string;
  /** Did the server itself say that it is not to be believed or asked, whatever it said before? */
  readonly final: boolean;
  /** Seconds for which it wants to be left alone. */
  readonly silence?: number;
}

/** Conversations with one server that may break before it is given up. */
const ATTEMPTS = 3;

/** Seconds to wait before the second conversation; twice as long before the third. */
const RETRY_PAUSE = 0.1;

/** Seconds between two exchanges with a server of NTP, which must not be burst at. */
export const SPACING = 2;

/** Seconds in which a connection that was kept must answer: it may lead nowhere any more. */
const KEPT_PATIENCE = 1;

/** Seconds of silence after a kiss: DENY and RSTR, and RATE. */
const SILENCE = { denied: 3600, rate: 64 } as const;

/** Bursts that may contradict themselves before a server is given up. */
const BURSTS = 3;

/** A reply that is not to be believed. */
class RejectedReply extends Error {
  constructor(readonly rejection: ReplyRejection, readonly packet: Packet | null) {
    super(rejectionText(rejection, packet));
  }

  get silence(): { silence?: number } {
    if (this.rejection !== "kiss") return {};
    return { silence: kissCode(this.packet) === "RATE" ? SILENCE.rate : SILENCE.denied };
  }

  /** A RATE kiss takes nothing back of what was said before; other kisses do. */
  get isFinal(): boolean {
    return this.rejection === "unsynchronised" ||
      this.rejection === "kiss" && kissCode(this.packet) !== "RATE";
  }
}

/** A server that cannot even be talked to. The message begins with a verb. */
class NoConnection extends Error {}

/**
 * Measures one server.
 *
 * A conversation that breaks is begun again, up to {@linkcode ATTEMPTS} times
 * within the timeout, and what it had proved is kept. When the timeout is over,
 * the server counts as measured if there was at least one exchange.
 *
 * @throws The signal's reason. Everything else that can go wrong is a {@linkcode Failure}.
 */
export async function measure(
  server: ServerAddress,
  options: MeasureOptions,
  environment: Environment,
): Promise<Measurement | Failure> {
  let address: string | null = null;
  const deadline = new Deadline(environment, options.timeout, options.signal);
  try {
    for (let burst = 0; burst < BURSTS; burst++) {
      if (burst > 0 && server.transport === "ntp") await deadline.pause(SPACING);
      const association = new Association(server, options, environment, deadline);
      const outcome = await association.run();
      if (outcome !== null) return outcome;
      address = association.address;
      if (deadline.signal.aborted) break;
    }
  } finally {
    deadline.end();
  }
  return {
    status: "invalid",
    address,
    final: true,
    error: `${server.name} contradicts itself: a clock was stepped whenever it was measured`,
  };
}

class Association {
  readonly #server: ServerAddress;
  readonly #options: MeasureOptions;
  readonly #environment: Environment;
  readonly #deadline: Deadline;
  readonly #exchanges: Exchange[] = [];
  readonly #rejections = new Map<ReplyRejection, number>();
  #packet: Packet | undefined;
  #reply: Uint8Array = new Uint8Array();
  /** Exchanges of which the kernel took T4. */
  #stamped = 0;
  /** The address that is tried. */
  #address: string | null = null;
  /** The one that the exchanges were with: a retry may try others. */
  #measured: SocketAddress | null = null;
  readonly #start: CrossTimestamp;

  constructor(
    server: ServerAddress,
    options: MeasureOptions,
    environment: Environment,
    deadline: Deadline,
  ) {
    this.#server = server;
    this.#options = options;
    this.#environment = environment;
    this.#start = crossTimestamp(environment.clock);
    this.#deadline = deadline;
  }

  get address(): string | null {
    return this.#address;
  }

  /** One burst; `null` if its exchanges contradict each other. */
  async run(): Promise<Measurement | Failure | null> {
    const failure = await this.#converseWithin(ATTEMPTS);
    if (failure !== null && (this.#exchanges.length === 0 || failure.final)) {
      // The next time the name is looked up again: its machine may have gone for good.
      if (this.#options.kept !== undefined) this.#options.kept.address = null;
      return failure;
    }
    const { clock } = this.#environment;
    const precision = clock.precision + 2 ** this.#packet!.precision;
    const bounds = intersect(this.#exchanges, clock.monotonic(), precision);
    if (bounds === null) return null;
    return {
      status: "measured",
      address: formatAddress(this.#measured!),
      exchanges: this.#exchanges,
      bounds,
      packet: this.#packet!,
      start: this.#start,
      stamps: this.#stamped === this.#exchanges.length ? "kernel" : "user",
      rejections: this.#rejections,
      failure,
    };
  }

  /** Converses until the samples are complete or it makes no sense to go on, and says why then. */
  async #converseWithin(attempts: number): Promise<Failure | null> {
    for (let attempt = 1;; attempt++) {
      try {
        if (this.#server.transport === "ntp") await this.#converseByDatagrams();
        else await this.#converse();
        return null;
      } catch (error) {
        this.#options.signal.throwIfAborted();
        const failure = this.#failure(error);
        if (attempt === attempts || !this.#mayRecover(error)) return failure;
        const isNtp = this.#server.transport === "ntp";
        await this.#deadline.pause(isNtp ? SPACING : RETRY_PAUSE * attempt);
        if (this.#deadline.signal.aborted) return failure;
      }
    }
  }

  /** Opens a channel and exchanges messages until there are enough samples. */
  async #converse(): Promise<void> {
    const { clock } = this.#environment;
    const { signal } = this.#deadline;
    const { samples, onSample } = this.#options;
    const kept = this.#keptConnection();
    const connection = kept ?? await this.#open();
    const channel = streamChannel(connection, clock, signal);
    const cancel = kept === null
      ? () => {}
      : this.#environment.timers.after(KEPT_PATIENCE, () => kept.close());
    this.#reply = channel.reply;
    this.#address = formatAddress(channel.address);
    this.#settle(channel.address);
    let keep: KeptConnection | undefined;
    try {
      // The first exchange wakes everything on the way and does not count.
      await this.#exchange(channel);
      cancel();
      while (this.#exchanges.length < samples) {
        const { exchange, by } = await this.#exchange(channel);
        this.#keep(exchange, by);
        onSample(this.#exchanges.length);
      }
      keep = this.#options.kept;
    } finally {
      cancel();
      if (keep === undefined) channel.close();
      else {
        channel.release();
        keep.connection = connection;
        keep.address = channel.address;
      }
    }
  }

  /** Exchanges are with one address: another may be another machine, with another clock. */
  #settle(address: SocketAddress): void {
    const before = this.#measured;
    if (before !== null && formatAddress(before) !== formatAddress(address)) {
      this.#exchanges.length = this.#stamped = 0;
    }
    this.#measured = address;
  }

  /** It is the kept's no more: should it break, another is made. */
  #keptConnection(): Connection | null {
    const { kept } = this.#options;
    const connection = kept?.connection ?? null;
    if (kept !== undefined) kept.connection = null;
    return connection;
  }

  async #open(): Promise<Connection> {
    const connection = await this.#connect();
    if (this.#server.transport === "tls") await this.#startTls(connection);
    return connection;
  }

  /**
   * One datagram after another, with pauses. What gets lost is sent again, to
   * another address as long as none has answered: after that to this one only,
   * since another may be another machine, with another clock.
   */
  async #converseByDatagrams(): Promise<void> {
    const { network, clock, timers, nonce: random } = this.#environment;
    const { samples, onSample } = this.#options;
    const { signal } = this.#deadline;
    const known = this.#measured ?? this.#options.kept?.address ?? null;
    let candidates = known === null ? await this.#resolve() : [known];
    const request = new Uint8Array(PACKET_SIZE);
    const reply = this.#reply = new Uint8Array(PACKET_SIZE);
    while (this.#exchanges.length < samples) {
      const [server, ...others] = candidates as [SocketAddress, ...SocketAddress[]];
      this.#address = formatAddress(server);
      const nonce = random();
      encodeRequest(request, nonce);
      let stamps: Stamps;
      try {
        stamps = await exchangeDatagrams(network, server, request, reply, clock, timers, signal);
      } catch (error) {
        signal.throwIfAborted();
        // Who is lost to may hear the next; who refuses is not asked again.
        candidates = error instanceof LostDatagram ? [...others, server] : others;
        if (candidates.length > 0) continue;
        throw new NoConnection(this.#whyNot(error), { cause: error });
      }
      this.#settle(server);
      if (this.#options.kept !== undefined) this.#options.kept.address = server;
      candidates = [server];
      this.#keep(this.#judge(reply, nonce, stamps), stamps.by);
      onSample(this.#exchanges.length);
      this.#deadline.renew(SPACING);
      if (this.#exchanges.length < samples) await this.#deadline.sleep(SPACING);
    }
  }

  async #resolve(): Promise<SocketAddress[]> {
    const { hostname, port } = this.#server;
    const { family } = this.#options;
    try {
      const found = await this.#deadline.race(this.#environment.network.resolve(hostname, family));
      if (found.length === 0) throw Object.assign(new Error("no address"), { code: "ENOTFOUND" });
      const addresses = found.map((hostname) => ({ hostname, port }));
      this.#address = formatAddress(addresses[0]!);
      return addresses;
    } catch (error) {
      this.#deadline.signal.throwIfAborted();
      throw new NoConnection(this.#whyNot(error), { cause: error });
    }
  }

  async #connect(): Promise<Connection> {
    const { network, timers } = this.#environment;
    const { signal } = this.#deadline;
    const found = await this.#resolve();
    // Who answered before goes first.
    const { hostname: before } = this.#options.kept?.address ?? { hostname: "" };
    const addresses = found.toSorted((a, b) =>
      Number(b.hostname === before) - Number(a.hostname === before)
    );
    try {
      const secure = this.#server.transport === "tls";
      return await connectFirst(network, addresses, timers, signal, secure);
    } catch (error) {
      signal.throwIfAborted();
      throw new NoConnection(this.#whyNot(error), { cause: error });
    }
  }

  /** Nothing is measured before it is done. */
  async #startTls(connection: Connection): Promise<void> {
    const { hostname } = this.#server;
    try {
      await this.#deadline.race(connection.startTls!({ hostname, ca: this.#options.ca }));
    } catch (error) {
      connection.close();
      this.#deadline.signal.throwIfAborted();
      if (error instanceof TlsError) throw error;
      const how = error instanceof Deno.errors.UnexpectedEof
        ? "closed the connection in the TLS handshake"
        : `broke the connection in the TLS handshake (${errorText(error)})`;
      throw new ChannelError(`${how}; does it speak TLS?`, { cause: error });
    }
  }

  #whyNot(error: unknown): string {
    const { family } = this.#options;
    if (this.#address === null) {
      if (!isUnknownHost(error)) return `could not be looked up: ${errorText(error)}`;
      return `is not a known host${family === undefined ? "" : ` with an IPv${family} address`}`;
    }
    const where = this.#address === this.#server.name ? "" : ` at ${this.#address}`;
    const serving = this.#server.transport === "ntp" ? "an NTP server" : "`tsync serve`";
    const hint = error instanceof Deno.errors.ConnectionRefused
      ? `; is ${serving} running there?`
      : "";
    return `cannot be reached${where}: ${errorText(error)}${hint}`;
  }

  async #exchange(channel: Channel): Promise<{ exchange: Exchange; by: Stamper }> {
    const nonce = this.#environment.nonce();
    encodeRequest(channel.request, nonce);
    const stamps = await channel.exchange();
    return { exchange: this.#judge(channel.reply, nonce, stamps), by: stamps.by };
  }

  #keep(exchange: Exchange, by: Stamper): void {
    this.#exchanges.push(exchange);
    if (by === "kernel") this.#stamped++;
  }

  /** @throws {RejectedReply} if a reply is not to be believed. */
  #judge(reply: Uint8Array, nonce: bigint, { departed, arrived }: Stamps): Exchange {
    const { packet, rejection } = judgeReply(reply, nonce);
    if (rejection !== null) {
      this.#rejections.set(rejection, (this.#rejections.get(rejection) ?? 0) + 1);
      throw new RejectedReply(rejection, packet);
    }
    this.#packet = packet;
    const t2 = fromTimestamp(packet.receive, this.#environment.clock.realtime());
    const held = toNanoseconds(timestampDifference(packet.transmit, packet.receive));
    return { t1: departed, t2, t3: t2 + held, t4: arrived };
  }

  /** Is a new conversation worth trying? */
  #mayRecover(error: unknown): boolean {
    if (error instanceof RejectedReply) {
      const isNtp = this.#server.transport === "ntp";
      return error.rejection !== "kiss" && !(isNtp && error.isFinal);
    }
    return error instanceof ChannelError && !looksLikeTls(this.#reply);
  }

  #failure(error: unknown): Failure {
    const { name } = this.#server;
    return {
      status: error instanceof RejectedReply || error instanceof TlsError
        ? "invalid"
        : "unreachable",
      address: this.#address,
      final: error instanceof RejectedReply && error.isFinal,
      ...error instanceof RejectedReply ? error.silence : {},
      error: `${name} ${this.#what(error)}`,
    };
  }

  #what(error: unknown): string {
    const isOurs = error instanceof RejectedReply || error instanceof ChannelError ||
      error instanceof NoConnection || error instanceof TlsError;
    if (isOurs) return error.message + this.#quotation(error);
    if (!this.#deadline.signal.aborted) return `could not be measured: ${errorText(error)}`;
    const what = this.#address === null ? "could not be looked up" : "did not answer";
    return `${what} within ${this.#options.timeout} s`;
  }

  /** What the server sent instead of a reply, if a person can read it. */
  #quotation(error: unknown): string {
    if (error instanceof NoConnection || error instanceof TlsError) return "";
    if (looksLikeTls(this.#reply)) return "; it speaks TLS: ask it as tls://";
    if (error instanceof RejectedReply && !["mode", "version"].includes(error.rejection)) return "";
    const text = /^[\x20-\x7e]{4,}/.exec(String.fromCharCode(...this.#reply));
    return text === null ? "" : `: it sent "${text[0]}"`;
  }
}

/** A time by which something must have happened. Time during which the machine is suspended does not count. */
class Deadline {
  readonly #controller = new AbortController();
  readonly #environment: Environment;
  readonly #outer: AbortSignal;
  /** On the monotonic timeline. */
  #due: bigint;
  readonly #span: bigint;
  #cancel = () => {};

  constructor(environment: Environment, seconds: number, outer: AbortSignal) {
    this.#environment = environment;
    this.#outer = outer;
    this.#span = nanoseconds(seconds);
    this.#due = environment.clock.monotonic() + this.#span;
    outer.addEventListener("abort", this.#abort);
    if (outer.aborted) this.#abort();
    this.#watch();
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Gives as much time again, after a pause of so many seconds. */
  renew(pause: number): void {
    this.#due = this.#environment.clock.monotonic() + nanoseconds(pause) + this.#span;
  }

  /** To be called in the end. */
  end(): void {
    this.#cancel();
    this.#outer.removeEventListener("abort", this.#abort);
  }

  /** Waits for something that cannot be ended itself. */
  async race<T>(promise: Promise<T>): Promise<T> {
    const { promise: aborted, reject } = Promise.withResolvers<never>();
    const onAbort = () => reject(this.signal.reason);
    this.signal.addEventListener("abort", onAbort);
    try {
      this.signal.throwIfAborted();
      return await Promise.race([promise, aborted]);
    } finally {
      this.signal.removeEventListener("abort", onAbort);
    }
  }

  /** Sleeps, and goes on when there is no time left. */
  async pause(seconds: number): Promise<void> {
    try {
      await this.sleep(seconds);
    } catch {
      this.#outer.throwIfAborted();
    }
  }

  async sleep(seconds: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const cancel = this.#environment.timers.after(seconds, resolve);
    try {
      await this.race(promise);
    } finally {
      cancel();
    }
  }

  #watch(): void {
    const left = Number(this.#due - this.#environment.clock.monotonic()) / 1e9;
    if (left <= 0) this.#abort();
    else this.#cancel = this.#environment.timers.after(left, () => this.#watch());
  }

  readonly #abort = () => this.#controller.abort(this.#outer.reason);
}
