/**
 * What a server tells of, and how often: of refusals at most once a second
 * each kind, with the count since.
 *
 * @module
 */

import type { Carrier, Refusal } from "./counters.ts";

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
  /** The status page's thread has died, and another takes its place. */
  | { readonly event: "status-failed"; readonly error: string }
  | { readonly event: "accept-failed"; readonly error: string }
  | { readonly event: "renewed" }
  | {
    readonly event: "stopped";
    readonly connections: number;
    readonly replies: number;
  };

/** What refusals are told of together. */
type Kind = `${Carrier} ${Refusal}`;

/** Passes events on, and keeps back what there is too much of. */
export class EventLog {
  readonly #onEvent: (event: ServerEvent) => void;
  /** Refusals that no event has told of yet. */
  readonly #untold = new Map<Kind, number>();
  /** What an event has told of in this tick. */
  readonly #told = new Set<Kind | "accept-failed">();

  constructor(onEvent: (event: ServerEvent) => void = () => {}) {
    this.#onEvent = onEvent;
  }

  /** Whatever becomes of the log, the server goes on. */
  tell(event: ServerEvent): void {
    try {
      this.#onEvent(event);
    } catch {
      // There is no place left to say so.
    }
  }

  /** Tells of refusals: now, or of all of their kind with the next tick. */
  refused(carrier: Carrier, reason: Refusal, count: number): void {
    const kind: Kind = `${carrier} ${reason}`;
    this.#untold.set(kind, (this.#untold.get(kind) ?? 0) + count);
    this.#tellOf(kind);
  }

  /** Tells why no connection is accepted, once in a tick. */
  acceptFailed(error: string): void {
    if (this.#told.has("accept-failed")) return;
    this.#told.add("accept-failed");
    this.tell({ event: "accept-failed", error });
  }

  /** A second has passed: tells of what was kept back. */
  tick(): void {
    this.#told.clear();
    for (const kind of this.#untold.keys()) this.#tellOf(kind);
  }

  #tellOf(kind: Kind): void {
    const count = this.#untold.get(kind);
    if (count === undefined || this.#told.has(kind)) return;
    this.#told.add(kind);
    this.#untold.delete(kind);
    const [transport, reason] = kind.split(" ") as [Carrier, Refusal];
    this.tell({
      event: "refused",
      ...transport === "udp" ? { transport } : {},
      reason,
      count,
    });
  }
}
