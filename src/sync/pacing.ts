/**
 * How often servers may be asked. Those of tsync take a burst of requests at
 * once; public NTP servers must be spared that.
 *
 * @module
 */

import type { TransportName } from "../net/address.ts";

/** How often a server may be asked. */
export interface Pacing {
  /** Exchanges that count in a burst, by default. */
  readonly samples: number;
  /** The same on a long path, where requests are sent ahead; `null` if they never are. */
  readonly farSamples: number | null;
  /** The same when time is kept: there are other bursts before and after it. */
  readonly keepingSamples: number;
  /**
   * Exchanges that do not count when a conversation begins: they wake everything on the way. On a
   * long path they count: waking takes little of their time.
   */
  readonly warmUps: number;
  /** Seconds between exchanges, and between bursts. The timeout begins again after each of them. */
  readonly spacingSeconds: number;
  /** Seconds before the second attempt, the third and so on; after that there are no more. */
  readonly retrySeconds: readonly number[];
  /** Does a server that says it is not synchronised get another attempt? */
  readonly retriesUnsynchronised: boolean;
  /** Seconds between polls, at least. */
  readonly leastIntervalSeconds: number;
  /** Seconds between polls at first, by default. */
  readonly firstIntervalSeconds: number;
  /** Seconds between polls at most, by default. */
  readonly lastIntervalSeconds: number;
}

const STREAM: Pacing = {
  samples: 16,
  farSamples: 32,
  keepingSamples: 8,
  warmUps: 1,
  spacingSeconds: 0,
  retrySeconds: [0.1, 0.2],
  retriesUnsynchronised: true,
  leastIntervalSeconds: 0,
  firstIntervalSeconds: 1,
  lastIntervalSeconds: 32,
};

const NTP: Pacing = {
  samples: 4,
  farSamples: null,
  keepingSamples: 4,
  warmUps: 0,
  spacingSeconds: 2,
  retrySeconds: [2, 2],
  retriesUnsynchronised: false,
  leastIntervalSeconds: 16, // MINPOLL (RFC 5905, section 7.2).
  firstIntervalSeconds: 64,
  lastIntervalSeconds: 64,
};

/** Seconds in which a server must answer, by default. */
export const TIMEOUT_SECONDS = 5;

/** By transport. */
export const PACING: Readonly<Record<TransportName, Pacing>> = {
  tcp: STREAM,
  tls: STREAM,
  ntp: NTP,
};
