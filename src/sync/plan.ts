/**
 * How many exchanges a burst makes, and how fast. Over a short path one follows
 * another. Over a long one that would take seconds: there requests are sent
 * before the replies to earlier ones have come. Pure.
 *
 * @module
 */

import { isCongestionLasting, meanWaiting } from "../estimate/congestion.ts";
import type { Exchange } from "../estimate/exchange.ts";

/** How many exchanges of a server count. */
export interface Samples {
  /** Over a short path. */
  readonly near: number;
  /** Over a long one; `null`: one follows another there too. */
  readonly far: number | null;
  /** Does a burst over a long path go on while congestion lasts? */
  readonly mayGrow: boolean;
}

/** How far a conversation has come. */
export interface Progress {
  /** Is the path a long one? `null` before the first reply. */
  readonly isFar: boolean | null;
  /** Seconds that connecting took. */
  readonly roundTrip: number;
  /** Requests whose replies have not come. */
  readonly inFlight: number;
}

/** What to do next. */
export interface Step {
  /** Exchanges that are yet to be made, those in flight included; 0: the burst is over. */
  readonly wanted: number;
  /** On a long path, seconds from one request to the next if no reply comes before. */
  readonly spacingSeconds: number;
}

/** Requests that are closer than this meet in the queues on the way. */
const LEAST_SPACING_SECONDS = 0.01;

/**
 * The spacing, as a part of the round trip: a new connection may have ten segments in flight (RFC
 * 6928). What is sent beyond that waits for an acknowledgement, and arrives together.
 */
const SPACING_PART = 1 / 10;

/** Seconds for which a burst goes on, once it has all samples, while congestion lasts. */
const EXTRA_SECONDS = 0.5;

/** How much closer requests are then: the connection is no longer new. */
const EXTRA_HASTE = 2;

/**
 * But no closer than so large a part of the time that messages wait on the way: TCP keeps them in
 * order, so that one that is late holds up those behind it.
 */
const WAITING_PART = 1 / 2;

/** How many are sent then, at most, while no reply comes. */
const EXTRA_AHEAD = 16;

/** Plans the next exchange. @param exchanges Those that count so far. */
export function nextStep(
  { near, far, mayGrow }: Samples,
  { isFar, roundTrip, inFlight }: Progress,
  exchanges: readonly Exchange[],
): Step {
  const all = isFar === false ? near : far ?? near;
  const wanted = Math.max(all - exchanges.length, inFlight);
  const spacingSeconds = Math.max(LEAST_SPACING_SECONDS, SPACING_PART * roundTrip);
  if (!isFar || !mayGrow || wanted > inFlight) return { wanted, spacingSeconds };
  const last = exchanges[all - 1];
  const isLate = last !== undefined &&
    exchanges.at(-1)!.t4 - last.t4 > BigInt(EXTRA_SECONDS * 1e9);
  // The first woke everything on the way: at the end of a row, one that is late looks as if it lasted.
  if (isLate || !isCongestionLasting(exchanges.slice(1))) return { wanted, spacingSeconds };
  return {
    wanted: wanted + EXTRA_AHEAD,
    spacingSeconds: Math.max(spacingSeconds / EXTRA_HASTE, WAITING_PART * meanWaiting(exchanges)),
  };
}
