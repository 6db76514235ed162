/**
 * The events that a server reports. Refusals are reported as counts, once a
 * second, so that a flood of them does not become a flood of lines.
 *
 * @module
 */

import type { Carrier, CarrierIncrease, Refusal } from "./counters.ts";

/** Something that happened in a server. Counts are those since the last event of the kind. */
export type ServerEvent =
  /** It listens on an address. `timestamps`: who takes those of arrival; absent with `http`. */
  | {
    readonly event: "listening";
    readonly transport: "tcp" | "tls" | "udp" | "http";
    readonly address: string;
    readonly timestamps?: "kernel" | "user";
  }
  /** Connections were refused or lost, or with `transport: "udp"` datagrams not answered. */
  | {
    readonly event: "refused";
    readonly transport?: "udp";
    readonly reason: Refusal;
    readonly count: number;
  }
  /** Requests came without a kernel timestamp, and the program took one instead. */
  | { readonly event: "unstamped"; readonly transport: Carrier; readonly count: number }
  /** A datagram socket failed. It is retried once a second. */
  | { readonly event: "datagrams-failed"; readonly error: string }
  /** A connection could not be accepted. It is retried ten times a second. */
  | { readonly event: "accept-failed"; readonly error: string }
  /** A new certificate is in use. */
  | { readonly event: "renewed" }
  /** It has stopped, after so many connections and replies. */
  | {
    readonly event: "stopped";
    readonly connections: number;
    readonly replies: number;
  };

/** Passes events to a callback. */
export class EventLog {
  readonly #onEvent: (event: ServerEvent) => void;

  constructor(onEvent: (event: ServerEvent) => void = () => {}) {
    this.#onEvent = onEvent;
  }

  emit(event: ServerEvent): void {
    try {
      this.#onEvent(event);
    } catch {
      // A failing log must not stop the server.
    }
  }

  report(increases: readonly CarrierIncrease[]): void {
    for (const { carrier, unstamped, refusals } of increases) {
      for (const [reason, count] of refusals) {
        const transport = carrier === "udp" ? { transport: carrier } : {};
        this.emit({ event: "refused", ...transport, reason, count });
      }
      if (unstamped > 0) this.emit({ event: "unstamped", transport: carrier, count: unstamped });
    }
  }
}
