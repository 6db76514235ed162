/**
 * Starts a server: opens its sockets and creates the services for them.
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
import { SessionContext } from "./session.ts";
import { StreamService } from "./stream_service.ts";
import type { Clock, Timers } from "../clock/clock.ts";
import { systemClock, systemRandom, systemTimers } from "../clock/system_clock.ts";
import { DEFAULT_PORT, formatAddress, hostOf, type SocketAddress } from "../net/address.ts";
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
import type { Keys } from "../ntp/mac.ts";
import { Admission, type Limits } from "./admission.ts";
import { type Bound, listen } from "./listen.ts";
import { IDLE_TIMEOUT_SECONDS } from "./idle_monitor.ts";
import { EventLog, type ServerEvent } from "./event_log.ts";
import { KernelService } from "./kernel_service.ts";

/** Options of {@linkcode serve}. */
export interface ServeOptions extends Limits {
  /** Addresses or names to listen on. Default: all addresses, IPv4 and IPv6. */
  hosts?: readonly string[] | undefined;
  /** TCP port; 0 for any free one. Default 10085. */
  port?: number | undefined;
  /**
   * UDP port for NTP clients; 0 for any free one. Default: none. Deno needs `"unstable": ["net"]`.
   */
  udpPort?: number | undefined;
  /** Serve TLS, with this certificate, in place of TCP. Deno needs `"unstable": ["net"]`. */
  tls?: Certificate | undefined;
  /**
   * Who takes the timestamps of arrival. The kernel can on Linux, where libc may be loaded, but not
   * with TLS or with another {@linkcode ServeOptions.clock} than the system's. Default `auto`.
   */
  timestamps?: Timestamps | undefined;
  /**
   * Where to serve the status page, `/metrics` and `/healthz` over HTTP; port 0 for any free one.
   * Default: nowhere.
   */
  http?: SocketAddress | undefined;
  /**
   * Further host names to answer HTTP requests for, such as a reverse proxy's. Default: only IP
   * addresses, `localhost` and the host in {@linkcode ServeOptions.http}.
   */
  httpHosts?: readonly string[] | undefined;
  /**
   * Keys, as `parseKeys` reads them. A request with a MAC of one of them gets a reply with one; with
   * a wrong MAC it gets none. Default: MACs over UDP are ignored.
   */
  keys?: Keys | undefined;
  /** Stratum to announce, 1 to 15. Default: 2 if the kernel's clock is synchronised, else 10. */
  stratum?: number | undefined;
  /** Seconds without a request after which a connection is closed. Default 300. */
  idleTimeout?: number | undefined;
  /** Called for everything worth logging. What it throws is ignored. Default: nothing. */
  onEvent?: ((event: ServerEvent) => void) | undefined;
  /** The clock to serve. Default: the system's. */
  clock?: Clock | undefined;
  /** The network to listen on. Default: the system's. */
  network?: Network | undefined;
  /** The timers to use. Default: the runtime's. */
  timers?: Timers | undefined;
  /** From 0 to less than 1: picks the excess datagrams to answer. Default: `Math.random`. */
  random?: (() => number) | undefined;
}

/**
 * Starts a server. It serves the local clock's time and never sets it.
 *
 * @returns The server, once it listens on all addresses.
 * @throws {Error} a sentence, if it cannot listen on an address, or the certificate is invalid; no
 * socket is left open.
 * @throws {OptionError} likewise, if another value of an option would help: the port is in use, say,
 * or the kernel cannot take timestamps.
 * @throws {RangeError} if a number is out of range.
 * @throws {SyntaxError} if a prefix in `allow` or `deny`, or a name in `httpHosts`, is malformed.
 * @throws {TypeError} if kernel timestamps are required with TLS or with a clock other than the
 * system's.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { serve, sync } from "tsync";
 *
 * const server = await serve({ hosts: ["127.0.0.1"], port: 0, stratum: 3 });
 * const [address] = server.addresses; // With the actual port.
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
  const now = () => clock.realtime();
  const { keys = null } = options;
  const sessions = new SessionContext(admission, new Counters(), now, idleTimeout, keys);
  const streams = new StreamService(sockets.listeners, sessions, timers);
  const services: Service[] = [
    streams,
    ...sockets.datagrams.map((listener) => new DatagramService(listener, sessions)),
  ];
  try {
    if (sockets.stamped.length > 0) {
      services.push(new KernelService(sockets.stamped, sessions, clock, timers));
    }
  } catch (error) {
    sockets.close();
    throw error;
  }
  let status: StatusPage | null = null;
  try {
    if (http !== undefined) {
      // Imported only when needed, to keep startup short.
      const { StatusService } = await import("./status/status.ts");
      status = await StatusService.listen({
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
  const renew = (certificate: Certificate) => {
    if (options.tls === undefined) throw new TypeError("cannot renew: TLS is not in use");
    streams.renew(certificate);
  };
  const log = new EventLog(options.onEvent);
  const parts = { endpoints, services, sessions, status, log, clock, timers, renew, stratum };
  const server = new ServiceGroup(parts);
  server.start();
  return server;
}

/** The sockets of a server, by the services that they need. */
class Sockets {
  readonly endpoints: Endpoint[] = [];
  /** For connections, timestamped by the program. */
  readonly listeners: Listener[] = [];
  /** For datagrams, timestamped by the program. */
  readonly datagrams: DatagramListener[] = [];
  /** For either, timestamped by the kernel. */
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
      throw new TypeError("cannot serve: kernel timestamps are not available with TLS");
    }
    requireLinuxLibc();
  }
  const sockets = new Sockets();
  const { listeners, datagrams, stamped, endpoints } = sockets;
  const bind = (transport: "tcp" | "udp", address: SocketAddress): BoundSocket | null => {
    if (timestamps === "user" || transport === "tcp" && tls !== undefined) return null;
    const socket = network.bind(transport, address);
    if (socket !== null || timestamps === "auto") return socket;
    const what = `the kernel does not timestamp what arrives at ${formatAddress(address)}`;
    throw new OptionError(`cannot serve: ${what}`, "timestamps");
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
      `cannot serve: httpHosts must be host names: current value is "${name}"`,
    );
  }
}

function checkRange(name: string, value: number | undefined, least: number, most: number): void {
  if (value === undefined || Number.isInteger(value) && value >= least && value <= most) return;
  throw new RangeError(
    `cannot serve: ${name} must be an integer from ${least} to ${most}: current value is ${value}`,
  );
}
