/**
 * What is counted. A worker and the server that started it share the numbers
 * themselves, so that counting is no more than adding.
 *
 * @module
 */

/** Why a connection was closed by the server, or lost, or a datagram not answered with the time. */
export type Refusal = typeof REFUSALS[number];

/** All of them. */
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

/** What messages come by. */
export type Carrier = "tcp" | "udp";

/** Places in the shared memory: those of TCP; UDP's are as many further on. */
const REPLIES = 0;
const UNSTAMPED = 1;
const REFUSED = 2;
const EACH = REFUSED + REFUSALS.length;
const CONNECTIONS = 2 * EACH;
const ACCEPT_FAILURES = CONNECTIONS + 1;
const ACCEPT_ERROR = CONNECTIONS + 2;
const STOP = CONNECTIONS + 3;
const SIZE = STOP + 1;

const INDEX = Object.fromEntries(REFUSALS.map((refusal, i) => [refusal, i])) as Readonly<
  Record<Refusal, number>
>;

/** What one carrier has brought since it was last asked. */
export interface Growth {
  readonly carrier: Carrier;
  readonly replies: number;
  /** Requests that the kernel did not stamp although it was to. */
  readonly unstamped: number;
  readonly refusals: readonly (readonly [Refusal, number])[];
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

  reply(carrier: Carrier): void {
    this.#now[of(carrier) + REPLIES]!++;
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
    readonly connections: number;
    /** Why connections could not be accepted: the error's number; 0 if they could. */
    readonly acceptError: number;
  } {
    const now = this.#now.slice();
    const grown = (i: number) => now[i]! - this.#seen[i]!;
    const carriers = (["tcp", "udp"] as const).map((carrier) => ({
      carrier,
      replies: grown(of(carrier) + REPLIES),
      unstamped: grown(of(carrier) + UNSTAMPED),
      refusals: REFUSALS.map((reason, i) => [reason, grown(of(carrier) + REFUSED + i)] as const)
        .filter(([, count]) => count > 0),
    }));
    const connections = grown(CONNECTIONS);
    const acceptError = grown(ACCEPT_FAILURES) > 0 ? now[ACCEPT_ERROR]! : 0;
    this.#seen.set(now);
    return { carriers, connections, acceptError };
  }
}

function of(carrier: Carrier): number {
  return carrier === "tcp" ? 0 : EACH;
}
