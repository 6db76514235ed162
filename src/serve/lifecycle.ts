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
  tick(): Trouble | null;
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

/** A server, made of services. */
export class ServiceGroup implements Server {
  readonly addresses: readonly SocketAddress[];
  readonly httpAddresses: readonly SocketAddress[];
  readonly renew: (certificate: Certificate) => void;
  readonly #endpoints: readonly Endpoint[];
  readonly #services: readonly Service[];
  readonly #sessions: SessionContext;
  readonly #status: StatusPage | null;
  readonly #log: EventLog;
  readonly #clock: Clock;
  readonly #timers: Timers;
  readonly #stratum: number | undefined;
  #cancelTick = () => {};
  #stopped: Promise<void> | undefined;

  /**
   * @param sessions Shared by the services.
   * @param stratum The stratum to announce. Default: 2 or 10, by the clock state.
   */
  constructor(
    { endpoints, services, sessions, status, log, clock, timers, renew, stratum }: {
      readonly endpoints: readonly Endpoint[];
      readonly services: readonly Service[];
      readonly sessions: SessionContext;
      readonly status: StatusPage | null;
      readonly log: EventLog;
      readonly clock: Clock;
      readonly timers: Timers;
      readonly renew: (certificate: Certificate) => void;
      readonly stratum: number | undefined;
    },
  ) {
    this.addresses = endpoints.map(({ address }) => address);
    this.httpAddresses = status?.addresses ?? [];
    this.renew = (certificate) => {
      renew(certificate);
      log.emit({ event: "renewed" });
    };
    this.#endpoints = endpoints;
    this.#services = services;
    this.#sessions = sessions;
    this.#status = status;
    this.#log = log;
    this.#clock = clock;
    this.#timers = timers;
    this.#stratum = stratum;
  }

  start(): void {
    this.#tick();
    for (const service of this.#services) service.start();
    for (const { transport, address, stamped } of this.#endpoints) {
      const timestamps = stamped ? "kernel" : "user";
      const where = { transport, address: formatAddress(address) };
      this.#log.emit({ event: "listening", ...where, timestamps });
    }
    for (const address of this.httpAddresses) {
      this.#log.emit({ event: "listening", transport: "http", address: formatAddress(address) });
    }
  }

  get counters(): ServerCounters {
    const { connections, tcp, udp } = this.#sessions.counters.totals;
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
    this.#sessions.stopping = true;
    this.#cancelTick();
    this.#status?.stop();
    await Promise.all(this.#services.map((service) => service.stop()));
    this.#log.report(this.#sessions.counters.increases());
    const { connections, replies } = this.counters;
    this.#log.emit({ event: "stopped", connections, replies });
  }

  /** Does once a second what would take too long for every request. */
  #tick(): void {
    const { admission, counters, now } = this.#sessions;
    const realtime = now();
    const { precision } = this.#clock;
    const template = replyTemplate(this.#clock.state(), precision, realtime, this.#stratum);
    this.#sessions.template = template;
    admission.forget(realtime);
    const troubles = this.#services.map((service) => service.tick()).filter((each) =>
      each !== null
    );
    this.#log.report(counters.increases());
    for (const trouble of troubles) this.#log.emit(trouble);
    if (this.#status !== null) {
      const [trouble] = troubles;
      this.#status.trouble = trouble ? `${TROUBLES[trouble.event]}: ${trouble.error}` : null;
    }
    this.#cancelTick = this.#timers.after(TICK_SECONDS, () => this.#tick());
  }
}
