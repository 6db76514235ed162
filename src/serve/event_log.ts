/**
 * What a server tells of. Refusals are counted, and told of once a second: a
 * flood of them does not become a flood of lines.
 *
 * @module
 */

import type { Carrier, Growth, Refusal } from "./counters.ts";

/** Something that a log may tell. */
export type ServerEvent =
  | {
    readonly event: "listening";
    readonly transport: "tcp" | "tls" | "udp" | "http";
    readonly address: string;
    /** Who says when requests come: the kernel, or the program. Not of `http`. */
    readonly timestamps?: "kernel" | "user";
  }
  /** `transport` is there if it was by datagram. */
  | {
    readonly event: "refused";
    readonly transport?: "udp";
    readonly reason: Refusal;
    readonly count: number;
  }
  /** The kernel did not say when some requests came: the program did. */
  | { readonly event: "unstamped"; readonly transport: Carrier; readonly count: number }
  /** Datagrams are not answered for a second, at the end of which it is tried again. */
  | { readonly event: "datagrams-failed"; readonly error: string }
  | { readonly event: "accept-failed"; readonly error: string }
  | { readonly event: "renewed" }
  | {
    readonly event: "stopped";
    readonly connections: number;
    readonly replies: number;
  };

/** Passes events on. */
export class EventLog {
  readonly #onEvent: (event: ServerEvent) => void;

  constructor(onEvent: (event: ServerEvent) => void = () => {}) {
    this.#onEvent = onEvent;
  }

  /** Whatever becomes of the log, the server goes on. */
  tell(event: ServerEvent): void {
    try {
      this.#onEvent(event);
    } catch {
      // There is nowhere left to say so.
    }
  }

  /** Tells what has been counted since the last call: to be called once a second. */
  report(growth: readonly Growth[]): void {
    for (const { carrier, unstamped, refusals } of growth) {
      for (const [reason, count] of refusals) {
        const transport = carrier === "udp" ? { transport: carrier } : {};
        this.tell({ event: "refused", ...transport, reason, count });
      }
      if (unstamped > 0) this.tell({ event: "unstamped", transport: carrier, count: unstamped });
    }
  }
}
