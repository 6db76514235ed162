/**
 * The server: accepts connections and answers on each for as long as it lasts.
 *
 * @module
 */

import type { Clock, Timers } from "../clock/clock.ts";
import { systemClock, systemTimers } from "../clock/system_clock.ts";
import { DEFAULT_PORT, formatAddress, type SocketAddress } from "../net/address.ts";
import {
  type Connection,
  errorText,
  isUnknownHost,
  type Listener,
  type Network,
  systemNetwork,
} from "../net/transport.ts";
import { type Certificate, CertificateError } from "../net/tls.ts";
import { Admission, type Client, type Limits } from "./admission.ts";
import { type Context, Conversation, type Refusal } from "./conversation.ts";
import { Turns } from "./fairness.ts";
import { announcement } from "./respond.ts";
import { type DatagramService, EventLoopService, WorkerService } from "./udp.ts";

/** Something that a log may tell. */
export type ServerEvent =
  | {
    readonly event: "listening";
    readonly transport: "tcp" | "tls" | "udp";
    readonly address: string;
  }
  /** `transport` is there if it was by datagram. */
  | {
    readonly event: "refused";
    readonly transport?: "udp";
    readonly reason: Refusal;
    readonly count: number;
  }
  /** The kernel does not stamp datagrams here: the program does. */
  | { readonly event: "user-timestamps"; readonly transport: "udp" }
  /** A thread has died, and another takes its place. */
  | { readonly event: "worker-failed"; readonly error: string }
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
  /** UDP port on which NTP clients are answered; 0 picks a free one. Default: none. */
  udpPort?: number | undefined;
  /** Answer only over TLS, and show this certificate. Deno wants `"unstable": ["net"]` for it. */
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
  const timers = options.timers ?? systemTimers;
  const listeners = await listen(
    network,
    (address) => network.listen(address, tls),
    hosts,
    port,
    "--port",
  );
  const onFailure = (error: string): void => server.notify({ event: "worker-failed", error });
  const datagrams = (address: SocketAddress): DatagramService => {
    const socket = network.bindDatagrams(address);
    if (socket !== null) return new WorkerService(socket, options, stratum, timers, onFailure);
    return new EventLoopService(network.listenDatagrams(address), options, clock);
  };
  let services: DatagramService[] = [];
  if (options.udpPort !== undefined) {
    try {
      services = await listen(network, datagrams, hosts, options.udpPort, "--udp-port");
    } catch (error) {
      for (const listener of listeners) listener.close();
      throw error;
    }
  }
  const server = new NtpServer(listeners, services, clock, admission, options);
  server.start();
  if (services.some((service) => service instanceof EventLoopService)) {
    server.notify({ event: "user-timestamps", transport: "udp" });
  }
  return server;
}

/** What is had of an address until it is closed. */
interface Bound {
  readonly address: SocketAddress;
  close(): void;
}

type Bind<T extends Bound> = (address: SocketAddress) => T;

/**
 * Opens a listener for each address, or none.
 *
 * @param flag Where another port can be named.
 */
async function listen<T extends Bound>(
  network: Network,
  bind: Bind<T>,
  hosts: readonly string[],
  port: number,
  flag: string,
): Promise<T[]> {
  const listeners: T[] = [];
  try {
    for (const host of hosts) {
      for (const hostname of await resolve(network, host)) {
        // A port that was picked for the first address is everybody's.
        listeners.push(open(bind, { hostname, port: listeners[0]?.address.port ?? port }, flag));
      }
    }
    if (hosts.length === 0) listeners.push(...openAll(bind, port, flag));
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

function open<T extends Bound>(bind: Bind<T>, address: SocketAddress, flag: string): T {
  try {
    return bind(address);
  } catch (error) {
    if (error instanceof CertificateError) throw error;
    throw new Error(`cannot listen on ${formatAddress(address)}: ${listenErrorText(error, flag)}`, {
      cause: error,
    });
  }
}

/**
 * All addresses: the IPv6 wildcard takes IPv4 too on most systems. Where it
 * does not, IPv4's is opened beside it, and where there is no IPv6, alone.
 */
function openAll<T extends Bound>(bind: Bind<T>, port: number, flag: string): T[] {
  let v6: T;
  try {
    v6 = bind({ hostname: "::", port });
  } catch (error) {
    if (error instanceof CertificateError) throw error;
    if (error instanceof Deno.errors.AddrInUse || error instanceof Deno.errors.PermissionDenied) {
      throw new Error(`cannot listen on port ${port}: ${listenErrorText(error, flag)}`, {
        cause: error,
      });
    }
    return [open(bind, { hostname: "0.0.0.0", port }, flag)];
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

function listenErrorText(error: unknown, flag: string): string {
  if (error instanceof Deno.errors.AddrInUse) {
    return `the address is in use; stop the program that uses it, or choose another with ${flag}`;
  }
  if (error instanceof Deno.errors.PermissionDenied) {
    return "permission denied; ports below 1024 need a privilege " +
      `(setcap cap_net_bind_service+ep, or root), or choose another with ${flag}`;
  }
  if (error instanceof Deno.errors.AddrNotAvailable) return "this machine has no such address";
  return errorText(error);
}

class NtpServer implements Server {
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
  readonly #services: readonly DatagramService[];
  readonly #clock: Clock;
  readonly #timers: Timers;
  readonly #context: Context;
  readonly #stratum: number | undefined;
  readonly #idleTimeout: number;
  readonly #onEvent: (event: ServerEvent) => void;
  readonly #conversations = new Set<Conversation>();
  /** Accept loops and conversations that have not ended. */
  #running = 0;
  readonly #ended = Promise.withResolvers<void>();
  /** Refusals that no event has told of yet, and those of which one has in this tick. */
  readonly #untold = new Map<Kind, number>();
  readonly #told = new Set<Kind | "accept-failed">();
  readonly #stopping = Promise.withResolvers<void>();
  #cancelTick = () => {};
  #stopped: Promise<void> | undefined;

  constructor(
    listeners: readonly Listener[],
    services: readonly DatagramService[],
    clock: Clock,
    admission: Admission,
    options: ServeOptions,
  ) {
    this.#listeners = listeners;
    this.#services = services;
    this.addresses = [...listeners, ...services].map(({ address }) => address);
    this.#clock = clock;
    this.#timers = options.timers ?? systemTimers;
    this.#context = {
      admission,
      turns: new Turns(),
      realtime: () => clock.realtime(),
      announced: new Uint8Array(),
      stopping: false,
      counters: this.counters,
      onEnd: this.#onEnd,
    };
    this.#stratum = options.stratum;
    this.#idleTimeout = options.idleTimeout ?? IDLE_TIMEOUT;
    this.#onEvent = options.onEvent ?? (() => {});
    this.#tick();
  }

  start(): void {
    for (const listener of this.#listeners) {
      this.#running++;
      this.#accept(listener).finally(() => this.#end());
      this.notify({
        event: "listening",
        transport: listener.transport,
        address: formatAddress(listener.address),
      });
    }
    for (const { address } of this.#services) {
      this.notify({ event: "listening", transport: "udp", address: formatAddress(address) });
    }
  }

  renew(certificate: Certificate): void {
    for (const listener of this.#listeners) {
      if (listener.renew === undefined) throw new TypeError("cannot renew: there is no TLS");
      listener.renew(certificate);
    }
    this.notify({ event: "renewed" });
  }

  stop(): Promise<void> {
    return this.#stopped ??= this.#stop();
  }

  async #stop(): Promise<void> {
    this.#context.stopping = true;
    this.#stopping.resolve();
    this.#cancelTick();
    for (const listener of this.#listeners) listener.close();
    // What is between two requests has nothing in flight.
    for (const conversation of this.#conversations) if (conversation.idle) conversation.close();
    const grace = Promise.withResolvers<void>();
    const cancel = this.#timers.after(GRACE, () => {
      for (const conversation of this.#conversations) conversation.close();
      // A write that is under way may outlive its connection: it is not waited for.
      grace.resolve();
    });
    const ended = Promise.all([
      this.#ended.promise,
      ...this.#services.map((service) => service.stop()),
    ]);
    await Promise.race([ended, grace.promise]);
    cancel();
    this.#countDatagrams();
    this.#told.clear();
    for (const kind of this.#untold.keys()) this.#tell(kind);
    const { connections, replies } = this.counters;
    this.notify({ event: "stopped", connections, replies });
  }

  /** Whatever becomes of the log, the server goes on. */
  notify(event: ServerEvent): void {
    try {
      this.#onEvent(event);
    } catch {
      // There is no place left to say so.
    }
  }

  #end(): void {
    if (--this.#running === 0) this.#ended.resolve();
  }

  /** What is done once a second, so that no request has to. */
  #tick(): void {
    const now = this.#clock.realtime();
    const { precision } = this.#clock;
    const discipline = this.#clock.discipline();
    this.#context.announced = announcement(discipline, precision, now, this.#stratum);
    this.#context.admission.forget(now);
    for (const conversation of this.#conversations) conversation.checkTimeouts(this.#idleTimeout);
    for (const service of this.#services) service.announce(this.#context.announced, now);
    this.#countDatagrams();
    this.#told.clear();
    for (const kind of this.#untold.keys()) this.#tell(kind);
    this.#cancelTick = this.#timers.after(TICK, () => this.#tick());
  }

  async #accept(listener: Listener): Promise<void> {
    while (!this.#context.stopping) {
      try {
        const connection = await listener.accept();
        if (connection === null) return;
        if (this.#context.stopping) return connection.close();
        const { admission, realtime } = this.#context;
        const client = admission.connect(connection.remote.hostname, realtime());
        if (typeof client === "string") {
          connection.close();
          this.#refuse(client);
        } else this.#converse(connection, client, listener.transport === "tls");
      } catch (error) {
        if (isLost(error)) {
          this.#refuse("reset");
          continue;
        }
        // Out of file descriptors, say: the connections there are go on.
        if (!this.#told.has("accept-failed")) {
          this.#told.add("accept-failed");
          this.notify({ event: "accept-failed", error: errorText(error) });
        }
        const { promise, resolve } = Promise.withResolvers<void>();
        const cancel = this.#timers.after(ACCEPT_PAUSE, resolve);
        await Promise.race([promise, this.#stopping.promise]);
        cancel();
      }
    }
  }

  #converse(connection: Connection, client: Client, secure: boolean): void {
    const conversation = new Conversation(connection, client, this.#context);
    this.#conversations.add(conversation);
    this.#running++;
    this.counters.connections++;
    conversation.start(secure);
  }

  readonly #onEnd = (conversation: Conversation, refusal: Refusal | null): void => {
    this.#conversations.delete(conversation);
    this.#context.admission.disconnect(conversation.client);
    if (refusal !== null && !this.#context.stopping) this.#refuse(refusal);
    this.#end();
  };

  #countDatagrams(): void {
    for (const service of this.#services) {
      const { replies, refusals } = service.count();
      this.counters.replies += replies;
      for (const [reason, count] of refusals) {
        if (count > 0) this.#refuse(reason, "udp", count);
      }
    }
  }

  /** Counts refusals; tells of them now, or of all of their kind with the next tick. */
  #refuse(reason: Refusal, transport: "tcp" | "udp" = "tcp", count = 1): void {
    this.counters.refusals[reason] += count;
    const kind: Kind = `${transport} ${reason}`;
    this.#untold.set(kind, (this.#untold.get(kind) ?? 0) + count);
    this.#tell(kind);
  }

  #tell(kind: Kind): void {
    const count = this.#untold.get(kind);
    if (count === undefined || this.#told.has(kind)) return;
    this.#told.add(kind);
    this.#untold.delete(kind);
    const [transport, reason] = kind.split(" ") as ["tcp" | "udp", Refusal];
    this.notify({
      event: "refused",
      ...transport === "udp" ? { transport } : {},
      reason,
      count,
    });
  }
}

/** What refusals are told of together. */
type Kind = `${"tcp" | "udp"} ${Refusal}`;
