/**
 * A server's counters. Counting only adds to an array, since the next client
 * waits for its reply meanwhile.
 *
 * @module
 */

/**
 * Why a connection was refused, closed by the server or lost, or a datagram not answered with the
 * time.
 *
 * - `version`, `mode`: it did not start like a client's request of NTP version 1 to 4.
 * - `denied`, `max-clients`, `max-clients-per-address`, `rate`: the server's `Limits` forbid it.
 * - `incomplete`: it ended within a request.
 * - `idle`: no request came for `ServeOptions.idleTimeout`.
 * - `slow`: a message or TLS handshake took 10 s.
 * - `tls`: the TLS handshake failed.
 * - `reset`: the connection broke.
 */
export type Refusal = typeof REFUSALS[number];

/** All values of {@linkcode Refusal}. */
export const REFUSALS = [
  "version",
  "mode",
  "denied",
  "max-clients",
  "max-clients-per-address",
  "rate",
  "incomplete",
  "idle",
  "slow",
  "tls",
  "reset",
] as const;

/** The protocol that carries messages; TLS counts as `tcp`. */
export type Carrier = typeof CARRIERS[number];

/** All values of {@linkcode Carrier}. */
export const CARRIERS = ["tcp", "udp"] as const;

/**
 * Upper bounds of a histogram's buckets for how long the server held a request, T3 - T2. One more
 * bucket, without a bound, follows.
 */
export const HOLD_BOUNDS_NS: readonly number[] = [
  ...[1e3, 2.5e3, 5e3, 1e4, 2.5e4, 5e4, 1e5, 2.5e5, 5e5],
  ...[1e6, 2.5e6, 5e6, 1e7, 2.5e7, 1e8, 1e9],
];

/** Indices of TCP's counters; UDP's follow in the same order. */
const REPLIES = 0;
const UNSTAMPED = 1;
const HELD = 2;
const HOLDS = 3;
const REFUSED = HOLDS + HOLD_BOUNDS_NS.length + 1;
const EACH = REFUSED + REFUSALS.length;
const SIZE = 2 * EACH;

const INDEX = Object.fromEntries(REFUSALS.map((refusal, i) => [refusal, i])) as Readonly<
  Record<Refusal, number>
>;

/** How much one carrier's counters have increased. */
export interface CarrierIncrease {
  readonly carrier: Carrier;
  /** Requests without a kernel timestamp where there should have been one. */
  readonly unstamped: number;
  /** Only those that increased. */
  readonly refusals: readonly (readonly [Refusal, number])[];
}

/** One carrier's counters. */
export interface CarrierTotals {
  /** Replies with the time. */
  readonly replies: number;
  /** How long the server held all the requests for these, in nanoseconds. */
  readonly heldNs: number;
  /** Replies in each bucket of {@linkcode HOLD_BOUNDS_NS}, and in the last. */
  readonly holds: readonly number[];
  readonly unstamped: number;
  readonly refusals: Record<Refusal, number>;
}

export interface Totals {
  readonly tcp: CarrierTotals;
  readonly udp: CarrierTotals;
  /** Connections admitted so far. */
  readonly connections: number;
  /** Connections open now. */
  readonly open: number;
}

export class Counters {
  readonly #now = new Float64Array(SIZE);
  readonly #seen = new Float64Array(SIZE);
  #connections = 0;
  #open = 0;

  /**
   * Counts a reply with the time. Call it when the reply has been handed over.
   *
   * @param heldNs T3 - T2; negative if the clock was set back between the two.
   */
  reply(carrier: Carrier, heldNs: bigint): void {
    const now = this.#now;
    const first = indexOf(carrier);
    const nanoseconds = Math.max(0, Number(heldNs));
    let hold = 0;
    while (hold < HOLD_BOUNDS_NS.length && nanoseconds > HOLD_BOUNDS_NS[hold]!) hold++;
    now[first + REPLIES]!++;
    now[first + HELD]! += nanoseconds;
    now[first + HOLDS + hold]!++;
  }

  unstamped(carrier: Carrier): void {
    this.#now[indexOf(carrier) + UNSTAMPED]!++;
  }

  refuse(carrier: Carrier, reason: Refusal): void {
    this.#now[indexOf(carrier) + REFUSED + INDEX[reason]]!++;
  }

  /** Counts an admitted connection. */
  connect(): void {
    this.#connections++;
    this.#open++;
  }

  /** Counts the end of one. */
  disconnect(): void {
    this.#open--;
  }

  /** How much the counters have increased since the last call. */
  increases(): readonly CarrierIncrease[] {
    const increase = (i: number) => this.#now[i]! - this.#seen[i]!;
    const carriers = CARRIERS.map((carrier) => {
      const first = indexOf(carrier);
      return {
        carrier,
        unstamped: increase(first + UNSTAMPED),
        refusals: REFUSALS.map((reason, i) => [reason, increase(first + REFUSED + i)] as const)
          .filter(([, count]) => count > 0),
      };
    });
    this.#seen.set(this.#now);
    return carriers;
  }

  get totals(): Totals {
    return {
      tcp: this.#carrier("tcp"),
      udp: this.#carrier("udp"),
      connections: this.#connections,
      open: this.#open,
    };
  }

  #carrier(carrier: Carrier): CarrierTotals {
    const first = indexOf(carrier);
    const now = this.#now.subarray(first, first + EACH);
    const refusals = REFUSALS.map((reason, i) => [reason, now[REFUSED + i]!] as const);
    return {
      replies: now[REPLIES]!,
      heldNs: now[HELD]!,
      holds: [...now.subarray(HOLDS, REFUSED)],
      unstamped: now[UNSTAMPED]!,
      refusals: Object.fromEntries(refusals) as Record<Refusal, number>,
    };
  }
}

function indexOf(carrier: Carrier): number {
  return carrier === "tcp" ? 0 : EACH;
}
