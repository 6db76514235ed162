/**
 * The server: accepts connections and answers on each for as long as it lasts.
 *
 * @module
 */

import type { Clock, Timers } from "../clock/clock.ts";
import { systemClock, systemRandom, systemTimers } from "../clock/system_clock.ts";
import { DEFAULT_PORT, formatAddress, hostOf, type SocketAddress } from "../net/address.ts";
import type {
  BoundSocket,
  Certificate,
  Connection,
  DatagramListener,
  Listener,
  Network,
  Timestamps,
} from "../net/network.ts";
import { libcSockets, numberedErrorText, requireSockets } from "../net/linux/socket.ts";
import { errorText, isLost } from "../net/errors.ts";
import { stampers, systemNetwork } from "../net/system.ts";
import { Admission, type Client, type Limits } from "./admission.ts";
import { type Context, Conversation } from "./stream_service.ts";
import { FairQueue } from "./fair_queue.ts";
import { Figures, type Refusal, REFUSALS, sum } from "./counters.ts";
import { type Bound, listen } from "./listen.ts";
import { EventLog, type ServerEvent } from "./event_log.ts";
import { replyTemplate } from "./reply.ts";
import { EventLoopService, KernelService, type Service } from "./kernel_service.ts";
import { StatusService } from "./status/status.ts";
import { GRACE } from "./idle_monitor.ts";

/** What a server is to do. */
export interface ServeOptions extends Limits {
  /** Addresses or names to listen on. Default: all addresses, IPv4 and IPv6. */
  hosts?: readonly string[] | undefined;
  /** TCP port; 0 picks a free one. Default 10085. */
  port?: number | undefined;
  /**
   * UDP port on which NTP clients are answered; 0 picks a free one. Deno wants
   * `"unstable": ["net"]` for it. Default: none.
   */
  udpPort?: number | undefined;
  /** Answer only over TLS, and show this certificate. Deno wants `"unstable": ["net"]` for it. */
  tls?: Certificate | undefined;
  /**
   * Who says when requests came: the kernel can on Linux, where libc may be loaded, but not over TLS.
   * Default `auto`: the kernel where it can and the clock is the machine's, else the program.
   */
  timestamps?: Timestamps | undefined;
  /**
   * Where the status page, `/metrics` and `/healthz` are served over HTTP; port 0 picks one.
   * Default: nowhere. It is a thread of its own, and costs some memory.
   */
  http?: SocketAddress | undefined;
  /**
   * Names by which the status page is asked for, such as that of a proxy in front. Default: it
   * answers by its addresses, as `localhost`, and by the name that {@linkcode ServeOptions.http} has.
   */
  httpHosts?: readonly string[] | undefined;
  /** Stratum to announce, 1 to 15. Default: by the kernel's own state. */
  stratum?: number | undefined;
  /** Seconds after which a connection that has been silent is closed. Default 300. */
  idleTimeout?: number | undefined;
  /** Told of everything worth a line in a log. */
  onEvent?: ((event: ServerEvent) => void) | undefined;
  /** The clock whose time is told. Default: the machine's, which is the kernel's too. */
  clock?: Clock | undefined;
  /** Where clients come from. Default: the machine's network. */
  network?: Network | undefined;
  /** What runs things later. Default: the runtime's. */
  timers?: Timers | undefined;
  /**
   * From 0 to less than 1: which of too many datagrams are answered all the same. Default:
   * `Math.random`.
   */
  random?: (() => number) | undefined;
}

/** A server that is listening. */
export interface Server {
  /** Where: one for each socket. */
  readonly addresses: readonly SocketAddress[];
  /** Where the status page is; none without {@linkcode ServeOptions.http}. */
  readonly httpAddresses: readonly SocketAddress[];
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
  /** Connections that were admitted, open or not. */
  connections: number;
  /** Replies with the time, on all transports. */
  replies: number;
  /** Connections closed or lost, and datagrams not answered with the time, by reason. */
  refusals: Record<Refusal, number>;
}

/** Seconds between two looks at the kernel's clock, at what the connections do, and at what to log. */
const TICK = 1;

/** Seconds before a failed accept is tried again. */
const ACCEPT_PAUSE = 0.1;

/** Seconds of silence that a connection is allowed by default. */
const IDLE_TIMEOUT = 300;

/**
 * Starts a server. It tells the local clock's time, and never sets it.
 *
 * @returns Once it listens on all its addresses.
 * @throws {Error} a sentence, if it cannot listen on one of them, or cannot have the kernel's
 * timestamps although it should; no socket is left open then.
 * @throws {RangeError} if a number is out of range.
 * @throws {SyntaxError} if a prefix to allow or deny is none, or a name of the status page's.
 * @throws {TypeError} if it is to have both the kernel's timestamps and TLS.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { serve, sync } from "@tsync/tsync";
 *
 * const server = await serve({ hosts: ["127.0.0.1"], port: 0, stratum: 3 });
 * const [address] = server.addresses; // With the port that was picked.
 * const { servers } = await sync({ servers: [`127.0.0.1:${address!.port}`] });
 * assertEquals(servers[0]!.figures!.stratum, 3);
 * await server.stop();
 * ```
 */
export async function serve(options: ServeOptions = {}): Promise<Server> {
  const { stratum } = options;
  checkRange("stratum", stratum, 1, 15);
  checkRange("port", options.port, 0, 65535);
  checkRange("udpPort", options.udpPort, 0, 65535);
  checkRange("http.port", options.http?.port, 0, 65535);
  const { idleTimeout = IDLE_TIMEOUT } = options;
  if (!(idleTimeout > 0)) {
    throw new RangeError(
      `cannot serve: idleTimeout must be a positive number of seconds: current value is ${idleTimeout}`,
    );
  }
  const { http, httpHosts = [] } = options;
  for (const name of httpHosts) {
    if (hostOf(name) !== null) continue;
    throw new SyntaxError(
      `cannot serve: httpHosts must be names of hosts: current value is "${name}"`,
    );
  }
  const admission = new Admission(options, options.random ?? systemRandom);
  const clock = options.clock ?? systemClock();
  const network = options.network ?? systemNetwork;
  const timers = options.timers ?? systemTimers;
  const { hosts = [], port = DEFAULT_PORT, udpPort, tls } = options;
  const timestamps = stampers(options.timestamps, clock);
  if (timestamps === "kernel") {
    if (tls !== undefined && udpPort === undefined) {
      throw new TypeError("cannot serve: the kernel's timestamps cannot be had with TLS");
    }
    requireSockets();
  }
  const bind = (transport: "tcp" | "udp", address: SocketAddress) => {
    if (timestamps === "user" || transport === "tcp" && tls !== undefined) return null;
    const socket = network.bind(transport, address);
    if (socket !== null || timestamps === "auto") return socket;
    throw new Error("the kernel does not stamp what comes there; do without --timestamps kernel");
  };
  const tcp = await listen<Listener | BoundSocket>(
    network,
    (address) => bind("tcp", address) ?? network.listen(address, tls),
    hosts,
    port,
    "--port",
  );
  let udp: (DatagramListener | BoundSocket)[] = [];
  try {
    if (udpPort !== undefined) {
      udp = await listen<DatagramListener | BoundSocket>(
        network,
        (address) => bind("udp", address) ?? network.listenDatagrams(address),
        hosts,
        udpPort,
        "--udp-port",
      );
    }
  } catch (error) {
    for (const listener of tcp) listener.close();
    throw error;
  }
  const sockets = [...tcp, ...udp].filter((bound) => "fd" in bound);
  const datagrams = udp.filter((bound) => "receive" in bound);
  const onFailure = (error: string): void => server.failed(error);
  const how = { stratum, idleTimeout };
  const services: Service[] = datagrams.map((listener) =>
    new EventLoopService(listener, admission, clock)
  );
  try {
    if (sockets.length > 0) {
      services.push(new KernelService(sockets, how, admission, clock, timers, onFailure));
    }
  } catch (error) {
    for (const bound of [...tcp, ...udp]) bound.close();
    throw error;
  }
  const listeners = tcp.filter((bound) => "accept" in bound);
  const stream = tls === undefined ? "tcp" : "tls";
  const places = [...tcp.map(placeOf(stream)), ...udp.map(placeOf("udp"))];
  const server = new NtpServer(places, listeners, services, clock, admission, options);
  try {
    if (http !== undefined) await server.show(http, httpHosts);
  } catch (error) {
    for (const listener of listeners) listener.close();
    for (const service of services) await service.stop();
    throw error;
  }
  server.start();
  return server;
}

function checkRange(name: string, value: number | undefined, least: number, most: number): void {
  if (value === undefined || Number.isInteger(value) && value >= least && value <= most) return;
  throw new RangeError(
    `cannot serve: ${name} must be an integer from ${least} to ${most}: current value is ${value}`,
  );
}

/** A socket that the server answers on. */
interface Place {
  readonly transport: "tcp" | "tls" | "udp";
  readonly address: SocketAddress;
  /** Does the kernel say when requests come? */
  readonly stamped: boolean;
}

function placeOf(transport: Place["transport"]): (bound: Bound) => Place {
  return (bound) => ({ transport, address: bound.address, stamped: "fd" in bound });
}

class NtpServer implements Server {
  readonly addresses: readonly SocketAddress[];
  /** What this thread counts, and what all do. */
  readonly #figures = new Figures();
  readonly #all: readonly Figures[];
  readonly #places: readonly Place[];
  readonly #listeners: readonly Listener[];
  readonly #services: readonly Service[];
  readonly #clock: Clock;
  readonly #timers: Timers;
  readonly #context: Context;
  readonly #stratum: number | undefined;
  readonly #idleTimeout: number;
  readonly #limits: Limits;
  readonly #log: EventLog;
  readonly #conversations = new Set<Conversation>();
  /** Accept loops and conversations that have not ended. */
  #running = 0;
  readonly #ended = Promise.withResolvers<void>();
  #status: StatusService | null = null;
  /** What keeps clients from being answered, as of this tick. */
  #trouble: string | null = null;
  readonly #stopping = Promise.withResolvers<void>();
  #cancelTick = () => {};
  #stopped: Promise<void> | undefined;

  constructor(
    places: readonly Place[],
    listeners: readonly Listener[],
    services: readonly Service[],
    clock: Clock,
    admission: Admission,
    options: ServeOptions,
  ) {
    this.#all = [this.#figures, ...services.map(({ figures }) => figures)];
    this.#listeners = listeners;
    this.#services = services;
    this.#places = places;
    this.addresses = places.map(({ address }) => address);
    this.#clock = clock;
    this.#timers = options.timers ?? systemTimers;
    this.#context = {
      admission,
      turns: new FairQueue(),
      realtime: () => clock.realtime(),
      announced: new Uint8Array(),
      stopping: false,
      figures: this.#figures,
      onEnd: this.#onEnd,
    };
    this.#stratum = options.stratum;
    this.#idleTimeout = options.idleTimeout ?? IDLE_TIMEOUT;
    this.#log = new EventLog(options.onEvent);
    this.#limits = options;
  }

  /** Shows what it does over HTTP, before it starts. */
  async show(address: SocketAddress, names: readonly string[]): Promise<void> {
    const { allow, deny, rate } = this.#limits;
    const order = {
      address,
      names,
      transports: this.#places.map(({ transport, stamped }) => ({ transport, stamped })),
      addresses: this.#places.map((place) => `${place.transport} ${formatAddress(place.address)}`),
      stratum: this.#stratum,
      started: { monotonic: this.#clock.monotonic(), realtime: this.#clock.realtime() },
      limits: { allow, deny, rate },
      figures: this.#all.map(({ shared }) => shared),
    };
    this.#status = await StatusService.start(
      order,
      this.#timers,
      (error) => this.#log.tell({ event: "status-failed", error }),
    );
  }

  get httpAddresses(): readonly SocketAddress[] {
    return this.#status?.addresses ?? [];
  }

  start(): void {
    this.#tick();
    for (const service of this.#services) service.start();
    for (const listener of this.#listeners) {
      this.#running++;
      this.#accept(listener).finally(() => this.#end());
    }
    if (this.#running === 0) this.#ended.resolve();
    for (const { transport, address, stamped } of this.#places) {
      const timestamps = stamped ? "kernel" : "user";
      const where = { transport, address: formatAddress(address) };
      this.#log.tell({ event: "listening", ...where, timestamps });
    }
    for (const address of this.httpAddresses) {
      const where = { transport: "http", address: formatAddress(address) } as const;
      this.#log.tell({ event: "listening", ...where });
    }
  }

  get counters(): Counters {
    const { connections, tcp, udp } = sum(this.#all);
    const refusals = REFUSALS.map((reason) =>
      [reason, tcp.refusals[reason] + udp.refusals[reason]] as const
    );
    return {
      connections,
      replies: tcp.replies + udp.replies,
      refusals: Object.fromEntries(refusals) as Record<Refusal, number>,
    };
  }

  renew(certificate: Certificate): void {
    for (const listener of this.#listeners) {
      if (listener.renew === undefined) throw new TypeError("cannot renew: there is no TLS");
      listener.renew(certificate);
    }
    this.#log.tell({ event: "renewed" });
  }

  stop(): Promise<void> {
    return this.#stopped ??= this.#stop();
  }

  async #stop(): Promise<void> {
    this.#context.stopping = true;
    this.#stopping.resolve();
    this.#cancelTick();
    this.#status?.stop();
    for (const listener of this.#listeners) listener.close();
    // What is between two requests has nothing in flight.
    for (const conversation of this.#conversations) if (conversation.idle) conversation.close();
    const grace = Promise.withResolvers<void>();
    const cancel = this.#timers.after(GRACE, () => {
      for (const conversation of this.#conversations) conversation.close();
      // A write that is under way may outlive its connection: it is not waited for.
      grace.resolve();
    });
    await Promise.all([
      Promise.race([this.#ended.promise, grace.promise]),
      ...this.#services.map((service) => service.stop()),
    ]);
    cancel();
    this.#count();
    this.#log.tick();
    const { connections, replies } = this.counters;
    this.#log.tell({ event: "stopped", connections, replies });
  }

  /** Tells why datagrams cannot be answered for a while. */
  failed(error: string): void {
    this.#status?.tell(this.#trouble = `datagrams cannot be answered: ${error}`);
    this.#log.tell({ event: "datagrams-failed", error });
  }

  #end(): void {
    if (--this.#running === 0) this.#ended.resolve();
  }

  /** What is done once a second, so that no request has to. */
  #tick(): void {
    const now = this.#clock.realtime();
    const { precision } = this.#clock;
    const state = this.#clock.state();
    this.#figures.beat();
    this.#context.announced = replyTemplate(state, precision, now, this.#stratum);
    this.#context.admission.forget(now);
    for (const conversation of this.#conversations) conversation.checkTimeouts(this.#idleTimeout);
    for (const service of this.#services) service.announce(this.#context.announced);
    this.#count();
    this.#log.tick();
    this.#status?.tell(this.#trouble);
    // What is still so will be found to be so again, but for a service that waits to go on.
    if (this.#services.every(({ running }) => running)) this.#trouble = null;
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
        this.#acceptFailed(errorText(error));
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
    this.#figures.connect();
    conversation.start(secure);
  }

  readonly #onEnd = (conversation: Conversation, refusal: Refusal | null): void => {
    this.#conversations.delete(conversation);
    this.#context.admission.disconnect(conversation.client);
    this.#figures.disconnect();
    if (refusal !== null && !this.#context.stopping) this.#refuse(refusal);
    this.#end();
  };

  /** Tells of what the services have counted. */
  #count(): void {
    for (const { figures } of this.#services) {
      const { carriers, acceptError } = figures.grown();
      for (const { carrier, unstamped, refusals } of carriers) {
        for (const [reason, count] of refusals) this.#log.refused(carrier, reason, count);
        if (unstamped > 0) {
          this.#log.tell({ event: "unstamped", transport: carrier, count: unstamped });
        }
      }
      if (acceptError !== 0) this.#acceptFailed(numberedErrorText(libcSockets()!, acceptError));
    }
  }

  #acceptFailed(error: string): void {
    this.#trouble = `connections cannot be accepted: ${error}`;
    this.#log.acceptFailed(error);
  }

  #refuse(reason: Refusal): void {
    this.#figures.refuse("tcp", reason);
    this.#log.refused("tcp", reason, 1);
  }
}
