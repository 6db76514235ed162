/**
 * A server's lifecycle: starts its services, maintains them once a second,
 * reports events, and stops them.
 *
 * @module
 */

import type { Clock, Timers } from "../clock/clock.ts";
import { formatAddress, type SocketAddress } from "../net/address.ts";
import type { Certificate } from "../net/network.ts";
import { type Refusal, REFUSALS } from "./counters.ts";
import type { EventLog } from "./event_log.ts";
import { replyTemplate } from "./reply.ts";
import type { SessionContext } from "./session.ts";

/** A running server. */
export interface Server {
  /** The addresses it listens on, one for each socket, with the actual ports in place of 0. */
  readonly addresses: readonly SocketAddress[];
  /** The addresses of the status page; empty without `ServeOptions.http`. */
  readonly httpAddresses: readonly SocketAddress[];
  /** The counters as of now. */
  readonly counters: ServerCounters;
  /**
   * With TLS: uses another certificate for new connections.
   *
   * @throws {Error} a sentence, if it is invalid or not for its key; the old one stays in use.
   * @throws {TypeError} if the server does not use TLS.
   */
  renew(certificate: Certificate): void;
  /** Stops accepting, finishes pending replies, and closes everything within a second. */
  stop(): Promise<void>;
}

/** A server's counters since it started, for all transports together. */
export interface ServerCounters {
  /** Connections admitted, open or closed. */
  readonly connections: number;
  /** Replies with the time. */
  readonly replies: number;
  /** Connections refused, closed or lost, and datagrams not answered with the time, by reason. */
  readonly refusals: Readonly<Record<Refusal, number>>;
}

/** A failure that keeps clients from being answered. */
export interface Trouble {
  /** What failed: accepting connections, or receiving datagrams. */
  readonly event: "accept-failed" | "datagrams-failed";
  /** The system's error message. */
  readonly error: string;
}

/** Answers requests on some of a server's sockets. */
export interface Service {
  start(): void;
  /** Called once a second. @returns What has kept it from answering since the last call. */
  tick(): readonly Trouble[];
  /** Stops accepting and finishes pending replies. @returns Resolves when everything is closed. */
  stop(): Promise<void>;
}

/** A socket that the server answers on. */
export interface Endpoint {
  readonly transport: "tcp" | "tls" | "udp";
  readonly address: SocketAddress;
  /** Whether the kernel takes the timestamps of arrival. */
  readonly stamped: boolean;
}

/** Shows the server's state over HTTP. */
export interface StatusPage {
  readonly addresses: readonly SocketAddress[];
  /** What is wrong with the server: a sentence; `null` if nothing is. */
  trouble: string | null;
  stop(): void;
}

/** Pause before accepting is retried. */
export const ACCEPT_PAUSE_SECONDS = 0.1;

/** Time between two calls of the services' `tick`. */
const TICK_SECONDS = 1;

const TROUBLES: Readonly<Record<Trouble["event"], string>> = {
  "accept-failed": "connections cannot be accepted",
  "datagrams-failed": "datagrams cannot be answered",
};

/** What a server is made of. */
export interface ServerParts {
  readonly endpoints: readonly Endpoint[];
  readonly services: readonly Service[];
  /** Shared by the services. */
  readonly sessions: SessionContext;
  readonly status: StatusPage | null;
  readonly log: EventLog;
  readonly clock: Clock;
  readonly timers: Timers;
  /** Shows another certificate. */
  readonly renew: (certificate: Certificate) => void;
  /** The stratum to announce. Default: 2 or 10, by the clock state. */
  readonly stratum: number | undefined;
}

/** A server, made of services. */
export class ServiceGroup implements Server {
  readonly #parts: ServerParts;
  #cancelTick = () => {};
  #stopped: Promise<void> | undefined;

  constructor(parts: ServerParts) {
    this.#parts = parts;
  }

  get addresses(): readonly SocketAddress[] {
    return this.#parts.endpoints.map(({ address }) => address);
  }

  get httpAddresses(): readonly SocketAddress[] {
    return this.#parts.status?.addresses ?? [];
  }

  renew(certificate: Certificate): void {
    this.#parts.renew(certificate);
    this.#parts.log.emit({ event: "renewed" });
  }

  start(): void {
    this.#tick();
    for (const service of this.#parts.services) service.start();
    for (const { transport, address, stamped } of this.#parts.endpoints) {
      const timestamps = stamped ? "kernel" : "user";
      const where = { transport, address: formatAddress(address) };
      this.#parts.log.emit({ event: "listening", ...where, timestamps });
    }
    for (const address of this.httpAddresses) {
      this.#parts.log.emit({
        event: "listening",
        transport: "http",
        address: formatAddress(address),
      });
    }
  }

  get counters(): ServerCounters {
    const { connections, tcp, udp } = this.#parts.sessions.counters.totals;
    const refusals = REFUSALS.map((reason) =>
      [reason, tcp.refusals[reason] + udp.refusals[reason]] as const
    );
    return {
      connections,
      replies: tcp.replies + udp.replies,
      refusals: Object.fromEntries(refusals) as Record<Refusal, number>,
    };
  }

  stop(): Promise<void> {
    return this.#stopped ??= this.#stop();
  }

  async #stop(): Promise<void> {
    const { sessions, services, status, log } = this.#parts;
    sessions.stopping = true;
    this.#cancelTick();
    status?.stop();
    await Promise.all(services.map((service) => service.stop()));
    log.report(sessions.counters.increases());
    const { connections, replies } = this.counters;
    log.emit({ event: "stopped", connections, replies });
  }

  /** Does once a second what would take too long for every request. */
  #tick(): void {
    const { sessions, services, status, log, clock, timers, stratum } = this.#parts;
    const realtime = sessions.now();
    sessions.template = replyTemplate(clock.state(), clock.precision, realtime, stratum);
    sessions.admission.forget(realtime);
    const troubles = services.flatMap((service) => service.tick());
    log.report(sessions.counters.increases());
    for (const trouble of troubles) log.emit(trouble);
    const [trouble] = troubles;
    if (status !== null) {
      status.trouble = trouble ? `${TROUBLES[trouble.event]}: ${trouble.error}` : null;
    }
    this.#cancelTick = timers.after(TICK_SECONDS, () => this.#tick());
  }
}
