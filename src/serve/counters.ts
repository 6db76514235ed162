/**
 * What is counted. Counting is no more than adding to an array: it comes
 * between a client's request and the next client's reply.
 *
 * @module
 */

/** Why a connection was closed by the server, or lost, or a datagram not answered with the time. */
export type Refusal = typeof REFUSALS[number];

/** All that a {@linkcode Refusal} can be. */
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

/** What messages come by; TLS counts as `tcp`. */
export type Carrier = typeof CARRIERS[number];

/** Both that a {@linkcode Carrier} can be. */
export const CARRIERS = ["tcp", "udp"] as const;

/**
 * Upper bounds of the classes into which replies are sorted by the time that the server held the
 * request, T3 - T2, in nanoseconds. What took longer than the last is in a class of its own.
 */
export const HOLD_BOUNDS: readonly number[] = [
  ...[1e3, 2.5e3, 5e3, 1e4, 2.5e4, 5e4, 1e5, 2.5e5, 5e5],
  ...[1e6, 2.5e6, 5e6, 1e7, 2.5e7, 1e8, 1e9],
];

/** Indices of TCP's counts; UDP's follow in the same order. */
const REPLIES = 0;
const UNSTAMPED = 1;
const HELD = 2;
const HOLDS = 3;
const REFUSED = HOLDS + HOLD_BOUNDS.length + 1;
const EACH = REFUSED + REFUSALS.length;
const SIZE = 2 * EACH;

const INDEX = Object.fromEntries(REFUSALS.map((refusal, i) => [refusal, i])) as Readonly<
  Record<Refusal, number>
>;

/** What one carrier has brought since the last look. */
export interface Growth {
  readonly carrier: Carrier;
  /** Requests that the kernel did not stamp although it was to. */
  readonly unstamped: number;
  readonly refusals: readonly (readonly [Refusal, number])[];
}

/** All that one carrier has brought. */
export interface CarrierTotals {
  /** Replies with the time. */
  readonly replies: number;
  /** Nanoseconds for which the server held the requests of these, together. */
  readonly held: number;
  /** How many replies are in each class of {@linkcode HOLD_BOUNDS}, and in the one beyond. */
  readonly holds: readonly number[];
  readonly unstamped: number;
  readonly refusals: Record<Refusal, number>;
}

/** All that was counted. */
export interface Totals {
  readonly tcp: CarrierTotals;
  readonly udp: CarrierTotals;
  /** Connections admitted so far. */
  readonly connections: number;
  /** Connections that are open. */
  readonly open: number;
}

/** The counts of a server. */
export class Counters {
  readonly #now = new Float64Array(SIZE);
  readonly #seen = new Float64Array(SIZE);
  #connections = 0;
  #open = 0;

  /**
   * Counts a reply with the time. To be called when it is on its way.
   *
   * @param held T3 - T2 in nanoseconds; below zero if the clock was set between the two.
   */
  reply(carrier: Carrier, held: bigint): void {
    const now = this.#now;
    const first = indexOf(carrier);
    const nanoseconds = Math.max(0, Number(held));
    let hold = 0;
    while (hold < HOLD_BOUNDS.length && nanoseconds > HOLD_BOUNDS[hold]!) hold++;
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

  /** Counts a connection that was admitted. */
  connect(): void {
    this.#connections++;
    this.#open++;
  }

  /** Counts the end of one. */
  disconnect(): void {
    this.#open--;
  }

  /** What has been counted since the last call. */
  grown(): readonly Growth[] {
    const grown = (i: number) => this.#now[i]! - this.#seen[i]!;
    const carriers = CARRIERS.map((carrier) => ({
      carrier,
      unstamped: grown(indexOf(carrier) + UNSTAMPED),
      refusals: REFUSALS.map((reason, i) =>
        [reason, grown(indexOf(carrier) + REFUSED + i)] as const
      )
        .filter(([, count]) => count > 0),
    }));
    this.#seen.set(this.#now);
    return carriers;
  }

  /** All that was counted so far. */
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
      held: now[HELD]!,
      holds: [...now.subarray(HOLDS, REFUSED)],
      unstamped: now[UNSTAMPED]!,
      refusals: Object.fromEntries(refusals) as Record<Refusal, number>,
    };
  }
}

function indexOf(carrier: Carrier): number {
  return carrier === "tcp" ? 0 : EACH;
}
