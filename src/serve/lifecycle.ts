/**
 * A server's life: it starts its services, looks after them once a second,
 * reports what happened, and stops them.
 *
 * @module
 */

import type { Clock, Timers } from "../clock/clock.ts";
import { formatAddress, type SocketAddress } from "../net/address.ts";
import type { Certificate } from "../net/network.ts";
import { type Refusal, REFUSALS } from "./counters.ts";
import type { EventLog } from "./event_log.ts";
import { replyTemplate } from "./reply.ts";
import type { Sessions } from "./session.ts";

/** A server that is listening. */
export interface Server {
  /** Where: one for each socket. */
  readonly addresses: readonly SocketAddress[];
  /** Where the status page is; none without `ServeOptions.http`. */
  readonly httpAddresses: readonly SocketAddress[];
  /** What happened so far. */
  readonly counters: ServerCounters;
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
export interface ServerCounters {
  /** Connections that were admitted, open or not. */
  readonly connections: number;
  /** Replies with the time, on all transports. */
  readonly replies: number;
  /** Connections closed or lost, and datagrams not answered with the time, by reason. */
  readonly refusals: Readonly<Record<Refusal, number>>;
}

/** What keeps clients from being answered. */
export interface Trouble {
  /** What cannot be done. */
  readonly event: "accept-failed" | "datagrams-failed";
  /** Why, in words. */
  readonly error: string;
}

/** Answers on some of a server's sockets. */
export interface Service {
  start(): void;
  /** To be called once a second. @returns What keeps it from answering, or has since the last call. */
  tick(): Trouble | null;
  /** Accepts nobody any more and finishes what is in flight. @returns When everything is closed. */
  stop(): Promise<void>;
}

/** A socket that the server answers on. */
export interface Endpoint {
  readonly transport: "tcp" | "tls" | "udp";
  readonly address: SocketAddress;
  /** Does the kernel say when requests come? */
  readonly stamped: boolean;
}

/** Shows over HTTP what the server does. */
export interface StatusPage {
  readonly addresses: readonly SocketAddress[];
  /** What is wrong with the server: a sentence; `null` if nothing is. */
  trouble: string | null;
  stop(): void;
}

/** Seconds before a failed accept is tried again. */
export const ACCEPT_PAUSE_SECONDS = 0.1;

/** Seconds between two looks at the kernel's clock, at the services, and at what to log. */
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
  readonly #sessions: Sessions;
  readonly #status: StatusPage | null;
  readonly #log: EventLog;
  readonly #clock: Clock;
  readonly #timers: Timers;
  readonly #stratum: number | undefined;
  #cancelTick = () => {};
  #stopped: Promise<void> | undefined;

  /**
   * @param sessions What the services share.
   * @param stratum What to announce. Default: by the kernel's own state.
   */
  constructor(
    { endpoints, services, sessions, status, log, clock, timers, renew, stratum }: {
      readonly endpoints: readonly Endpoint[];
      readonly services: readonly Service[];
      readonly sessions: Sessions;
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
      log.tell({ event: "renewed" });
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
      this.#log.tell({ event: "listening", ...where, timestamps });
    }
    for (const address of this.httpAddresses) {
      this.#log.tell({ event: "listening", transport: "http", address: formatAddress(address) });
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
    this.#log.report(this.#sessions.counters.grown());
    const { connections, replies } = this.counters;
    this.#log.tell({ event: "stopped", connections, replies });
  }

  /** What is done once a second, so that no request has to. */
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
    this.#log.report(counters.grown());
    for (const trouble of troubles) this.#log.tell(trouble);
    if (this.#status !== null) {
      const [trouble] = troubles;
      this.#status.trouble = trouble ? `${TROUBLES[trouble.event]}: ${trouble.error}` : null;
    }
    this.#cancelTick = this.#timers.after(TICK_SECONDS, () => this.#tick());
  }
}
