/**
 * What is counted. The status page's thread and the server share the numbers
 * themselves, so that counting is no more than adding.
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

/** Places in the shared memory: those of TCP; UDP's are as many further on. */
const REPLIES = 0;
const UNSTAMPED = 1;
const HELD = 2;
const HOLDS = 3;
const REFUSED = HOLDS + HOLD_BOUNDS.length + 1;
const EACH = REFUSED + REFUSALS.length;
const CONNECTIONS = 2 * EACH;
const ENDED = CONNECTIONS + 1;
const ACCEPT_FAILURES = CONNECTIONS + 2;
const ACCEPT_ERROR = CONNECTIONS + 3;
const BEAT = CONNECTIONS + 4;
const STOP = CONNECTIONS + 5;
const SIZE = STOP + 1;

const INDEX = Object.fromEntries(REFUSALS.map((refusal, i) => [refusal, i])) as Readonly<
  Record<Refusal, number>
>;

/** What one carrier has brought since it was last asked. */
export interface Growth {
  readonly carrier: Carrier;
  /** Requests that the kernel did not stamp although it was to. */
  readonly unstamped: number;
  readonly refusals: readonly (readonly [Refusal, number])[];
}

/** All that one carrier has brought. */
export interface CarrierTotals {
  /** Replies with the time. */
  replies: number;
  /** Nanoseconds for which the server held the requests of these, together. */
  held: number;
  /** How many replies are in each class of {@linkcode HOLD_BOUNDS}, and in the one beyond. */
  holds: number[];
  unstamped: number;
  refusals: Record<Refusal, number>;
}

/** All that was counted. */
export interface Totals {
  readonly tcp: CarrierTotals;
  readonly udp: CarrierTotals;
  /** Connections that were admitted, */
  connections: number;
  /** and how many of them are open. */
  open: number;
}

/** Numbers, each written by one side only. */
export class Figures {
  readonly shared: SharedArrayBuffer;
  readonly #now: Float64Array;
  readonly #seen: Float64Array;

  /** @param shared The other side's. Default: new. */
  constructor(shared: SharedArrayBuffer = new SharedArrayBuffer(8 * SIZE)) {
    this.shared = shared;
    this.#now = new Float64Array(shared);
    this.#seen = this.#now.slice();
  }

  /**
   * Counts a reply with the time. To be called when it is on its way.
   *
   * @param held T3 - T2 in nanoseconds; below zero if the clock was set between the two.
   */
  reply(carrier: Carrier, held: bigint): void {
    const now = this.#now;
    const place = of(carrier);
    const nanoseconds = Math.max(0, Number(held));
    let hold = 0;
    while (hold < HOLD_BOUNDS.length && nanoseconds > HOLD_BOUNDS[hold]!) hold++;
    now[place + REPLIES]!++;
    now[place + HELD]! += nanoseconds;
    now[place + HOLDS + hold]!++;
  }

  unstamped(carrier: Carrier): void {
    this.#now[of(carrier) + UNSTAMPED]!++;
  }

  refuse(carrier: Carrier, reason: Refusal): void {
    this.#now[of(carrier) + REFUSED + INDEX[reason]]!++;
  }

  connect(): void {
    this.#now[CONNECTIONS]!++;
  }

  disconnect(): void {
    this.#now[ENDED]!++;
  }

  /** Whoever accepts or answers does so: to be called once a second. */
  beat(): void {
    this.#now[BEAT]!++;
  }

  /** How often {@linkcode beat} was called. */
  get beats(): number {
    return this.#now[BEAT]!;
  }

  /** @param error Its number. */
  acceptFailed(error: number): void {
    this.#now[ACCEPT_ERROR] = error;
    this.#now[ACCEPT_FAILURES]!++;
  }

  /** Is there to be an end? */
  get stopping(): boolean {
    return this.#now[STOP] !== 0;
  }

  stop(): void {
    this.#now[STOP] = 1;
  }

  /** What has been counted since the last call. */
  grown(): {
    readonly carriers: readonly Growth[];
    /** Why connections could not be accepted: the error's number; 0 if they could. */
    readonly acceptError: number;
  } {
    const now = this.#now.slice();
    const grown = (i: number) => now[i]! - this.#seen[i]!;
    const carriers = CARRIERS.map((carrier) => ({
      carrier,
      unstamped: grown(of(carrier) + UNSTAMPED),
      refusals: REFUSALS.map((reason, i) => [reason, grown(of(carrier) + REFUSED + i)] as const)
        .filter(([, count]) => count > 0),
    }));
    const acceptError = grown(ACCEPT_FAILURES) > 0 ? now[ACCEPT_ERROR]! : 0;
    this.#seen.set(now);
    return { carriers, acceptError };
  }

  /** Adds what has been counted so far. */
  addTo(totals: Totals): void {
    const now = this.#now;
    for (const carrier of CARRIERS) {
      const place = of(carrier);
      const total = totals[carrier];
      total.replies += now[place + REPLIES]!;
      total.held += now[place + HELD]!;
      total.holds = total.holds.map((count, i) => count + now[place + HOLDS + i]!);
      total.unstamped += now[place + UNSTAMPED]!;
      for (const reason of REFUSALS) {
        total.refusals[reason] += now[place + REFUSED + INDEX[reason]]!;
      }
    }
    totals.connections += now[CONNECTIONS]!;
    totals.open += now[CONNECTIONS]! - now[ENDED]!;
  }
}

/** What several have counted together. */
export function sum(all: readonly Figures[]): Totals {
  const totals: Totals = { tcp: nothing(), udp: nothing(), connections: 0, open: 0 };
  for (const figures of all) figures.addTo(totals);
  return totals;
}

function nothing(): CarrierTotals {
  return {
    replies: 0,
    held: 0,
    holds: [...HOLD_BOUNDS.map(() => 0), 0],
    unstamped: 0,
    refusals: Object.fromEntries(REFUSALS.map((reason) => [reason, 0])) as Record<Refusal, number>,
  };
}

function of(carrier: Carrier): number {
  return carrier === "tcp" ? 0 : EACH;
}
