/**
 * The server: accepts connections and answers on each for as long as it lasts.
 *
 * @module
 */

import {
  type Endpoint,
  type Server,
  type Service,
  ServiceGroup,
  type StatusPage,
} from "./lifecycle.ts";
import { Counters } from "./counters.ts";
import { DatagramService } from "./datagram_service.ts";
import { OptionError } from "../net/errors.ts";
import { Sessions } from "./session.ts";
import type { StatusOptions, StatusService } from "./status/status.ts";
import { StreamService } from "./stream_service.ts";
import type { Clock, Timers } from "../clock/clock.ts";
import { systemClock, systemRandom, systemTimers } from "../clock/system_clock.ts";
import { DEFAULT_PORT, hostOf, type SocketAddress } from "../net/address.ts";
import type {
  BoundSocket,
  Certificate,
  DatagramListener,
  Listener,
  Network,
  Timestamps,
} from "../net/network.ts";
import { requireLinuxLibc } from "../net/linux/sockets.ts";
import { systemNetwork, timestampsFor } from "../net/system.ts";
import { Admission, type Limits } from "./admission.ts";
import { type Bound, listen } from "./listen.ts";
import { EventLog, type ServerEvent } from "./event_log.ts";
import { KernelService } from "./kernel_service.ts";

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
   * Default: nowhere.
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

/** Seconds of silence that a connection is allowed by default. */
export const IDLE_TIMEOUT_SECONDS = 300;

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
  check(options);
  const { http, httpHosts = [], stratum, idleTimeout = IDLE_TIMEOUT_SECONDS } = options;
  const admission = new Admission(options, options.random ?? systemRandom);
  const clock = options.clock ?? systemClock();
  const network = options.network ?? systemNetwork;
  const timers = options.timers ?? systemTimers;
  const sockets = await openSockets(options, network, timestampsFor(options.timestamps, clock));
  const { endpoints } = sockets;
  const sessions = new Sessions(admission, new Counters(), () => clock.realtime());
  const streams = new StreamService(sockets.listeners, sessions, timers, idleTimeout);
  const services: Service[] = [
    streams,
    ...sockets.datagrams.map((listener) => new DatagramService(listener, sessions)),
  ];
  try {
    if (sockets.stamped.length > 0) {
      services.push(new KernelService(sockets.stamped, sessions, clock, timers, idleTimeout));
    }
  } catch (error) {
    sockets.close();
    throw error;
  }
  let status: StatusPage | null = null;
  try {
    if (http !== undefined) {
      status = await showStatus({
        address: http,
        names: httpHosts,
        endpoints,
        stratum,
        started: { monotonic: clock.monotonic(), realtime: clock.realtime() },
        limits: { allow: options.allow, deny: options.deny, rate: options.rate },
        counters: sessions.counters,
        clock,
        network,
        timers,
      });
    }
  } catch (error) {
    for (const service of services) await service.stop(); // They close the sockets.
    throw error;
  }
  const renew = (certificate: Certificate) => streams.renew(certificate);
  const log = new EventLog(options.onEvent);
  const parts = { endpoints, services, sessions, status, log, clock, timers, renew, stratum };
  const server = new ServiceGroup(parts);
  server.start();
  return server;
}

/** Loaded only where it is wanted: a start need not wait for it. */
async function showStatus(options: StatusOptions): Promise<StatusService> {
  const { StatusService } = await import("./status/status.ts");
  return await StatusService.listen(options);
}

/** The sockets of a server, by how they are waited for. */
class Sockets {
  readonly endpoints: Endpoint[] = [];
  /** For connections, stamped by the program. */
  readonly listeners: Listener[] = [];
  /** For datagrams, stamped by the program. */
  readonly datagrams: DatagramListener[] = [];
  /** For either, stamped by the kernel. */
  readonly stamped: BoundSocket[] = [];

  close(): void {
    for (const socket of [...this.listeners, ...this.datagrams, ...this.stamped]) socket.close();
  }
}

/** Opens all of them, or none. */
async function openSockets(
  { hosts = [], port = DEFAULT_PORT, udpPort, tls }: ServeOptions,
  network: Network,
  timestamps: Timestamps,
): Promise<Sockets> {
  if (timestamps === "kernel") {
    if (tls !== undefined && udpPort === undefined) {
      throw new TypeError("cannot serve: the kernel's timestamps cannot be had with TLS");
    }
    requireLinuxLibc();
  }
  const sockets = new Sockets();
  const { listeners, datagrams, stamped, endpoints } = sockets;
  const bind = (transport: "tcp" | "udp", address: SocketAddress): BoundSocket | null => {
    if (timestamps === "user" || transport === "tcp" && tls !== undefined) return null;
    const socket = network.bind(transport, address);
    if (socket !== null || timestamps === "auto") return socket;
    throw new OptionError("the kernel does not stamp what comes there", "timestamps");
  };
  const open = <T extends Bound>(
    transport: Endpoint["transport"],
    others: T[],
    openOther: (address: SocketAddress) => T,
  ) =>
  (address: SocketAddress): Bound => {
    const socket = bind(transport === "udp" ? "udp" : "tcp", address);
    const bound = socket ?? openOther(address);
    if (socket !== null) stamped.push(socket);
    else others.push(bound as T);
    endpoints.push({ transport, address: bound.address, stamped: socket !== null });
    return bound;
  };
  const openStream = open(
    tls === undefined ? "tcp" : "tls",
    listeners,
    (address) => network.listen(address, tls),
  );
  const openDatagrams = open("udp", datagrams, (address) => network.listenDatagrams(address));
  try {
    await listen(network, openStream, hosts, port, "port");
    if (udpPort !== undefined) await listen(network, openDatagrams, hosts, udpPort, "udpPort");
  } catch (error) {
    sockets.close();
    throw error;
  }
  return sockets;
}

function check(options: ServeOptions): void {
  checkRange("stratum", options.stratum, 1, 15);
  checkRange("port", options.port, 0, 65535);
  checkRange("udpPort", options.udpPort, 0, 65535);
  checkRange("http.port", options.http?.port, 0, 65535);
  const { idleTimeout = IDLE_TIMEOUT_SECONDS } = options;
  if (!(idleTimeout > 0)) {
    throw new RangeError(
      `cannot serve: idleTimeout must be a positive number of seconds: current value is ${idleTimeout}`,
    );
  }
  for (const name of options.httpHosts ?? []) {
    if (hostOf(name) !== null) continue;
    throw new SyntaxError(
      `cannot serve: httpHosts must be names of hosts: current value is "${name}"`,
    );
  }
}

function checkRange(name: string, value: number | undefined, least: number, most: number): void {
  if (value === undefined || Number.isInteger(value) && value >= least && value <= most) return;
  throw new RangeError(
    `cannot serve: ${name} must be an integer from ${least} to ${most}: current value is ${value}`,
  );
}
