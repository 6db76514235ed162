/**
 * The arithmetic of one exchange (RFC 5905, section 8):
 *
 * ```text
 *  server ------ T2 --- T3 -------->
 *               /         \
 *  client --- T1 --------- T4 ----->
 * ```
 *
 * Here and in `envelope.ts` an offset is a `bigint` of nanoseconds: clocks can
 * be decades apart, where a double of seconds resolves no better than 0.1 µs.
 *
 * @module
 */

/** Four timestamps, all in nanoseconds: T1 and T4 by the client's clock, T2 and T3 by the server's. */
export interface Exchange {
  /** The request leaves the client. */
  readonly t1: bigint;
  /** The request reaches the server. */
  readonly t2: bigint;
  /** The reply leaves the server. */
  readonly t3: bigint;
  /** The reply reaches the client. */
  readonly t4: bigint;
}

/** Everything the offset (server minus client) can be; `lower <= upper` unless a clock was stepped. */
export interface Interval {
  /** The least it can be, in nanoseconds. */
  readonly lower: bigint;
  /** The most it can be, in nanoseconds. */
  readonly upper: bigint;
}

/** The offset, server minus client: add it to the client's clock. Nanoseconds, rounded down. */
export function offset({ t1, t2, t3, t4 }: Exchange): bigint {
  return ((t2 - t1) + (t3 - t4)) >> 1n;
}

/** The round trip less the time that the server held the request. Nanoseconds; below zero only if a clock was stepped. */
export function delay({ t1, t2, t3, t4 }: Exchange): bigint {
  return (t4 - t1) - (t3 - t2);
}

/**
 * What one exchange proves about the offset, given only that neither message
 * arrived before it was sent: `T3 - T4 <= offset <= T2 - T1`.
 */
export function interval({ t1, t2, t3, t4 }: Exchange): Interval {
  return { lower: t3 - t4, upper: t2 - t1 };
}
