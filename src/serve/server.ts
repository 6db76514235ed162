/**
 * The server: accepts connections and answers on each for as long as it lasts.
 *
 * @module
 */

import type { Clock, Timers } from "../clock/clock.ts";
import { systemClock, systemTimers } from "../clock/system_clock.ts";
import { DEFAULT_PORT, formatAddress, type SocketAddress } from "../net/address.ts";
import { MessageReader, MessageWriter } from "../net/framing.ts";
import {
  type Connection,
  errorText,
  isUnknownHost,
  type Listener,
  type Network,
  systemNetwork,
} from "../net/transport.ts";
import { type Certificate, CertificateError } from "../net/tls.ts";
import { PACKET_SIZE } from "../ntp/packet.ts";
import { refuseRequest, type RequestRefusal } from "../ntp/validation.ts";
import { Admission, type AdmissionRefusal, type Client, type Limits } from "./admission.ts";
import { Turns } from "./fairness.ts";
import { announcement, kiss, respond, stampTransmit } from "./respond.ts";

/** Why a connection was closed by the server, or lost. */
export type Refusal =
  | RequestRefusal
  | AdmissionRefusal
  | "incomplete"
  | "idle"
  | "slow"
  | "tls"
  | "reset";

/** Something that a log may tell. */
export type ServerEvent =
  | { readonly event: "listening"; readonly transport: "tcp" | "tls"; readonly address: string }
  | { readonly event: "refused"; readonly reason: Refusal; readonly count: number }
  | { readonly event: "accept-failed"; readonly error: string }
  | { readonly event: "renewed" }
  | {
    readonly event: "stopped";
    readonly connections: number;
    readonly replies: number;
  };

/** What a server is to do. */
export interface ServeOptions extends Limits {
  /** Addresses or names to listen on. Default: all addresses, IPv4 and IPv6. */
  hosts?: readonly string[] | undefined;
  /** TCP port; 0 picks a free one. Default 10085. */
  port?: number | undefined;
  /** Answer only over TLS, and show this certificate. */
  tls?: Certificate | undefined;
  /** Stratum to announce, 1 to 15. Default: by the kernel's own state. */
  stratum?: number | undefined;
  /** Seconds after which a connection that has been silent is closed. Default 300. */
  idleTimeout?: number | undefined;
  /** Told of everything worth a line in a log. */
  onEvent?: ((event: ServerEvent) => void) | undefined;
  /** The world outside. Default: the machine's. */
  clock?: Clock | undefined;
  network?: Network | undefined;
  timers?: Timers | undefined;
}

/** A server that is listening. */
export interface Server {
  /** Where: one for each socket. */
  readonly addresses: readonly SocketAddress[];
  /** What happened so far. */
  readonly counters: Readonly<Counters>;
  /**
   * With TLS: shows another certificate to those who connect from now on.
   *
   * @throws {Error} a sentence, if it is none or its key is another's; the old one stays.
   */
  renew(certificate: Certificate): void;
  /** Stops accepting, lets finish what is in flight, and closes everything within a second. */
  stop(): Promise<void>;
}

/** What a server counts. */
export interface Counters {
  connections: number;
  replies: number;
  refusals: Record<Refusal, number>;
}

/** Seconds between two looks at the kernel's clock, at what the connections do, and at what to log. */
const TICK = 1;

/** Seconds before a failed accept is tried again. */
const ACCEPT_PAUSE = 0.1;

/** Seconds of silence that a connection is allowed by default. */
const IDLE_TIMEOUT = 300;

/** Seconds for a message once begun, in either direction. */
const MESSAGE_TIMEOUT = 10;

/** Seconds that a request in flight has when the server is stopped. */
const GRACE = 0.5;

/**
 * Starts a server.
 *
 * @returns Once it listens on all its addresses.
 * @throws {Error} a sentence, if it cannot listen on one of them; none is left open then.
 * @throws {RangeError} if a number is out of range.
 * @throws {SyntaxError} if a prefix to allow or deny is none.
 */
export async function serve(options: ServeOptions = {}): Promise<Server> {
  const { stratum } = options;
  if (stratum !== undefined && !(Number.isInteger(stratum) && stratum >= 1 && stratum <= 15)) {
    throw new RangeError(
      `cannot serve: stratum must be an integer from 1 to 15: current value is ${stratum}`,
    );
  }
  const { idleTimeout = IDLE_TIMEOUT } = options;
  if (!(idleTimeout > 0)) {
    throw new RangeError(
      `cannot serve: idleTimeout must be a positive number of seconds: current value is ${idleTimeout}`,
    );
  }
  const admission = new Admission(options);
  const clock = options.clock ?? systemClock();
  const network = options.network ?? systemNetwork;
  const { hosts = [], port = DEFAULT_PORT, tls } = options;
  const bind: Bind = (address) => network.listen(address, tls);
  const listeners = await listen(network, bind, hosts, port);
  const server = new TcpServer(listeners, clock, admission, options);
  server.start();
  return server;
}

type Bind = (address: SocketAddress) => Listener;

/** Opens a listener for each address, or none. */
async function listen(
  network: Network,
  bind: Bind,
  hosts: readonly string[],
  port: number,
): Promise<Listener[]> {
  const listeners: Listener[] = [];
  try {
    for (const host of hosts) {
      for (const hostname of await resolve(network, host)) {
        // A port that was picked for the first address is everybody's.
        listeners.push(open(bind, { hostname, port: listeners[0]?.address.port ?? port }));
      }
    }
    if (hosts.length === 0) listeners.push(...openAll(bind, port));
  } catch (error) {
    for (const listener of listeners) listener.close();
    throw error;
  }
  return listeners;
}

async function resolve(network: Network, host: string): Promise<string[]> {
  try {
    return await network.resolve(host, undefined);
  } catch (error) {
    const why = isUnknownHost(error) ? "there is no such host" : errorText(error);
    throw new Error(`cannot listen on ${host}: ${why}`, { cause: error });
  }
}

function open(bind: Bind, address: SocketAddress): Listener {
  try {
    return bind(address);
  } catch (error) {
    if (error instanceof CertificateError) throw error;
    throw new Error(`cannot listen on ${formatAddress(address)}: ${listenErrorText(error)}`, {
      cause: error,
    });
  }
}

/**
 * All addresses: the IPv6 wildcard takes IPv4 too on most systems. Where it
 * does not, IPv4's is opened beside it, and where there is no IPv6, alone.
 */
function openAll(bind: Bind, port: number): Listener[] {
  let v6: Listener;
  try {
    v6 = bind({ hostname: "::", port });
  } catch (error) {
    if (error instanceof CertificateError) throw error;
    if (error instanceof Deno.errors.AddrInUse || error instanceof Deno.errors.PermissionDenied) {
      throw new Error(`cannot listen on port ${port}: ${listenErrorText(error)}`, { cause: error });
    }
    return [open(bind, { hostname: "0.0.0.0", port })];
  }
  try {
    return [v6, bind({ hostname: "0.0.0.0", port: v6.address.port })];
  } catch {
    return [v6];
  }
}

/** Did a connection end before it was accepted? That is no trouble of the listener's. */
function isLost(error: unknown): boolean {
  return error instanceof Deno.errors.NotConnected ||
    error instanceof Deno.errors.ConnectionAborted ||
    error instanceof Deno.errors.ConnectionReset;
}

function listenErrorText(error: unknown): string {
  if (error instanceof Deno.errors.AddrInUse) {
    return "the address is in use; stop the program that uses it, or choose another with --port";
  }
  if (error instanceof Deno.errors.PermissionDenied) {
    return "permission denied; ports below 1024 need a privilege";
  }
  if (error instanceof Deno.errors.AddrNotAvailable) return "this machine has no such address";
  return errorText(error);
}

/** One connection, as far as others must know of it. */
interface Conversation {
  readonly reader: MessageReader;
  /** Is TLS being agreed on? */
  shaking: boolean;
  /** Requests answered. */
  replies: number;
  /** `replies` at the last tick, and for how many ticks nothing has changed since. */
  seen: number;
  idle: boolean;
  still: number;
  /** Why the server has closed it. */
  refusal: Refusal | null;
}

class TcpServer implements Server {
  readonly addresses: readonly SocketAddress[];
  readonly counters: Counters = {
    connections: 0,
    replies: 0,
    refusals: {
      version: 0,
      mode: 0,
      denied: 0,
      "max-clients": 0,
      "max-clients-per-address": 0,
      rate: 0,
      incomplete: 0,
      idle: 0,
      slow: 0,
      tls: 0,
      reset: 0,
    },
  };
  readonly #listeners: readonly Listener[];
  readonly #clock: Clock;
  readonly #timers: Timers;
  readonly #admission: Admission;
  readonly #turns = new Turns();
  readonly #stratum: number | undefined;
  readonly #idleTimeout: number;
  readonly #onEvent: (event: ServerEvent) => void;
  readonly #conversations = new Map<Connection, Conversation>();
  readonly #tasks = new Set<Promise<void>>();
  /** Refusals that no event has told of yet, and those of which one has in this tick. */
  readonly #untold = new Map<Refusal, number>();
  readonly #told = new Set<Refusal | "accept-failed">();
  readonly #stopping = Promise.withResolvers<void>();
  #announced!: Uint8Array;
  #cancelTick = () => {};
  #stopped: Promise<void> | undefined;

  constructor(
    listeners: readonly Listener[],
    clock: Clock,
    admission: Admission,
    options: ServeOptions,
  ) {
    this.#listeners = listeners;
    this.addresses = listeners.map(({ address }) => address);
    this.#clock = clock;
    this.#timers = options.timers ?? systemTimers;
    this.#admission = admission;
    this.#stratum = options.stratum;
    this.#idleTimeout = options.idleTimeout ?? IDLE_TIMEOUT;
    this.#onEvent = options.onEvent ?? (() => {});
    this.#tick();
  }

  start(): void {
    for (const listener of this.#listeners) {
      this.#run(this.#accept(listener));
      this.#notify({
        event: "listening",
        transport: listener.transport,
        address: formatAddress(listener.address),
      });
    }
  }

  renew(certificate: Certificate): void {
    for (const listener of this.#listeners) {
      if (listener.renew === undefined) throw new TypeError("cannot renew: there is no TLS");
      listener.renew(certificate);
    }
    this.#notify({ event: "renewed" });
  }

  stop(): Promise<void> {
    return this.#stopped ??= this.#stop();
  }

  async #stop(): Promise<void> {
    this.#stopping.resolve();
    this.#cancelTick();
    for (const listener of this.#listeners) listener.close();
    // A connection between two requests has nothing in flight.
    for (const [connection, { reader }] of this.#conversations) {
      if (reader.filled === 0) connection.close();
    }
    const grace = Promise.withResolvers<void>();
    const cancel = this.#timers.after(GRACE, () => {
      for (const connection of this.#conversations.keys()) connection.close();
      // A write that is under way may outlive its connection: it is not waited for.
      grace.resolve();
    });
    await Promise.race([Promise.all(this.#tasks), grace.promise]);
    cancel();
    this.#told.clear();
    for (const reason of this.#untold.keys()) this.#tell(reason);
    const { connections, replies } = this.counters;
    this.#notify({ event: "stopped", connections, replies });
  }

  /** Whatever becomes of the log, the server goes on. */
  #notify(event: ServerEvent): void {
    try {
      this.#onEvent(event);
    } catch {
      // There is no place left to say so.
    }
  }

  #run(task: Promise<void>): void {
    const tracked = task.finally(() => this.#tasks.delete(tracked));
    this.#tasks.add(tracked);
  }

  /** What is done once a second, so that no request has to. */
  #tick(): void {
    const now = this.#clock.realtime();
    const { precision } = this.#clock;
    this.#announced = announcement(this.#clock.discipline(), precision, now, this.#stratum);
    this.#admission.forget(now);
    for (const [connection, conversation] of this.#conversations) {
      const refusal = this.#overdue(conversation);
      if (refusal === null) continue;
      conversation.refusal ??= refusal;
      connection.close();
    }
    this.#told.clear();
    for (const reason of this.#untold.keys()) this.#tell(reason);
    this.#cancelTick = this.#timers.after(TICK, () => this.#tick());
  }

  /** Has nothing happened on a connection for too long? */
  #overdue(conversation: Conversation): Refusal | null {
    const idle = conversation.reader.filled === 0 && !conversation.shaking;
    if (conversation.replies !== conversation.seen || idle !== conversation.idle) {
      conversation.seen = conversation.replies;
      conversation.idle = idle;
      conversation.still = 0;
      return null;
    }
    conversation.still += TICK;
    if (idle) return conversation.still >= this.#idleTimeout ? "idle" : null;
    return conversation.still >= MESSAGE_TIMEOUT ? "slow" : null;
  }

  async #accept(listener: Listener): Promise<void> {
    while (this.#stopped === undefined) {
      try {
        const connection = await listener.accept();
        if (connection === null) return;
        if (this.#stopped !== undefined) return connection.close();
        const client = this.#admission.connect(connection.remote.hostname, this.#clock.realtime());
        if (typeof client === "string") {
          connection.close();
          this.#refuse(client);
        } else this.#run(this.#converse(connection, client, listener.transport === "tls"));
      } catch (error) {
        if (isLost(error)) {
          this.#refuse("reset");
          continue;
        }
        // Out of file descriptors, say: the connections there are go on.
        if (!this.#told.has("accept-failed")) {
          this.#told.add("accept-failed");
          this.#notify({ event: "accept-failed", error: errorText(error) });
        }
        const { promise, resolve } = Promise.withResolvers<void>();
        const cancel = this.#timers.after(ACCEPT_PAUSE, resolve);
        await Promise.race([promise, this.#stopping.promise]);
        cancel();
      }
    }
  }

  /** Answers on one connection until its end. */
  async #converse(connection: Connection, client: Client, secure: boolean): Promise<void> {
    this.counters.connections++;
    const bytes = new Uint8Array(2 * PACKET_SIZE);
    const request = bytes.subarray(0, PACKET_SIZE);
    const reply = bytes.subarray(PACKET_SIZE);
    const realtime = () => this.#clock.realtime();
    const reader = new MessageReader(connection, request, realtime, isRefused);
    const writer = new MessageWriter(connection, reply);
    const conversation: Conversation = {
      reader,
      shaking: secure,
      replies: 0,
      seen: 0,
      idle: true,
      still: 0,
      refusal: null,
    };
    this.#conversations.set(connection, conversation);
    const read = () =>
      this.#stopped === undefined && conversation.refusal === null
        ? reader.read()
        : Promise.resolve(false);
    let written = Promise.resolve(true);
    try {
      let reading = secure ? this.#awaitTls(connection, conversation).then(read) : read();
      while (await reading) {
        if (!await written) break;
        respond(request, reply, this.#announced, reader.arrived);
        if (!this.#admission.request(client, reader.arrived)) {
          conversation.refusal = "rate";
          kiss(reply, "RATE");
          await writer.write();
          break;
        }
        // The next read is under way before this reply leaves: after T3 nothing is left to do.
        const turn = this.#turns.take();
        reading = turn === null ? read() : turn.then(read);
        stampTransmit(reply, realtime());
        written = writer.write();
        conversation.replies++;
        this.counters.replies++;
      }
      await written;
    } finally {
      this.#conversations.delete(connection);
      this.#admission.disconnect(client);
      connection.close();
    }
    if (this.#stopped !== undefined) return;
    if (conversation.refusal !== null) this.#refuse(conversation.refusal);
    else if ((reader.error ?? writer.error) !== undefined) this.#refuse("reset");
    else if (reader.filled > 0) this.#refuse(refuseRequest(request[0]!) ?? "incomplete");
  }

  async #awaitTls(connection: Connection, conversation: Conversation): Promise<void> {
    try {
      await connection.awaitTls!();
      conversation.shaking = false;
    } catch {
      conversation.refusal ??= "tls";
    }
  }

  /** Counts a refusal; tells of it now, or of all of its kind with the next tick. */
  #refuse(reason: Refusal): void {
    this.counters.refusals[reason]++;
    this.#untold.set(reason, (this.#untold.get(reason) ?? 0) + 1);
    this.#tell(reason);
  }

  #tell(reason: Refusal): void {
    const count = this.#untold.get(reason);
    if (count === undefined || this.#told.has(reason)) return;
    this.#told.add(reason);
    this.#untold.delete(reason);
    this.#notify({ event: "refused", reason, count });
  }
}

const isRefused = (firstByte: number): boolean => refuseRequest(firstByte) !== null;
