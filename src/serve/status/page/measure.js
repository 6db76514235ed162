// @ts-check
/// <reference lib="dom" />
/**
 * Measures this browser's clock as `tsync sync` does (`src/estimate/`), with what a browser has to
 * tell the time by. Times are numbers of milliseconds, on three timelines: the browser's monotonic
 * one (`performance.now()`), its clock (`Date.now()`), and the server's clock, less a large
 * constant.
 *
 * @module
 */

/** Exchanges in a measurement, after one that opens the connection. */
export const SAMPLES = 16;

/** How long the server has for an answer. */
const TIMEOUT_MS = 5000;

/** As `MAX_DRIFT` in `src/estimate/envelope.ts`. */
const MAX_DRIFT = 100e-6;

/** How far the clock may leave the monotonic timeline in a measurement, beyond slewing. */
const STEP_MS = 5;

/**
 * Milliseconds.
 *
 * @typedef {{ t1: number, t2: number, t3: number, t4: number }} Exchange
 */

/**
 * Of offsets, server minus browser.
 *
 * @typedef {{ lower: number, upper: number }} Interval
 */

/**
 * What all exchanges together prove of the offset from the monotonic timeline.
 *
 * @param {readonly Exchange[]} exchanges
 * @param {number} at The moment to state it for, no earlier than any T4.
 * @param {number} precision How finely T1 and T4 are read.
 * @returns {Interval | null} `null` if they have nothing in common.
 */
export function intersect(exchanges, at, precision) {
  let lower = -Infinity;
  let upper = Infinity;
  for (const { t1, t2, t3, t4 } of exchanges) {
    lower = Math.max(lower, t3 - t4 - precision - MAX_DRIFT * (at - t4));
    upper = Math.min(upper, t2 - t1 + precision + MAX_DRIFT * (at - t1));
  }
  return lower <= upper ? { lower, upper } : null;
}

/**
 * The delay of an exchange: its round trip less the time that the server held it.
 *
 * @param {Exchange} exchange
 */
export const delayOf = ({ t1, t2, t3, t4 }) => t4 - t1 - (t3 - t2);

/** The least step of `performance.now()` that can be seen: browsers make it coarse. */
function resolutionOf() {
  let least = Infinity;
  for (let i = 0; i < 20; i++) {
    const start = performance.now();
    let now = start;
    while (now === start) now = performance.now();
    least = Math.min(least, now - start);
  }
  return least;
}

/**
 * What both of the browser's timelines show at one moment: when its clock ticks from one
 * millisecond, the finest that it shows, to the next. The best of several attempts.
 *
 * @param {number} resolution
 */
function crossTimestamp(resolution, attempts = 5) {
  let best = { monotonic: 0, clock: 0, error: Infinity };
  const deadline = performance.now() + 200;
  for (let attempt = 0; attempt < attempts;) {
    // Read before the clock that still showed the previous millisecond.
    let before = performance.now();
    const shown = Date.now();
    for (;;) {
      const start = performance.now();
      const clock = Date.now();
      const after = performance.now();
      if (clock !== shown) {
        const error = (after - before) / 2 + resolution;
        if (error < best.error) best = { monotonic: (before + after) / 2, clock, error };
        attempt++;
        break;
      }
      if (after > deadline) {
        if (best.error < Infinity) return best;
        throw new Error("it does not advance");
      }
      before = start;
    }
  }
  return best;
}

/**
 * Asks the server.
 *
 * @param {string} path
 */
export async function get(path) {
  const signal = AbortSignal.timeout(TIMEOUT_MS);
  const response = await fetch(path, { cache: "no-store", signal });
  // Read before anything else is waited for.
  const arrived = performance.now();
  if (!response.ok) throw new Error((await response.text()).trim());
  return { arrived, body: await response.json() };
}

/**
 * Asks for the time. The browser's network stack takes timestamps of its own (Resource Timing), and
 * these leave out all that a page waits for: the request is sent no earlier than the first, and the
 * bytes have come no later than the second.
 */
async function exchange() {
  performance.clearResourceTimings();
  const before = performance.now();
  const { arrived, body } = await get("/time");
  const timing = /** @type {PerformanceResourceTiming | undefined} */ (
    performance.getEntriesByType("resource").at(-1)
  );
  const { requestStart: t1 = NaN, responseStart: t4 = NaN } = timing ?? {};
  return before <= t1 && t1 <= t4 && t4 <= arrived
    ? { t1, t4, body }
    : { t1: before, t4: arrived, body };
}

/**
 * Measures this browser's clock.
 *
 * @returns `null` if a clock was set meanwhile.
 */
export async function measure() {
  const resolution = resolutionOf();
  const base = BigInt((await get("/time")).body.receive);
  /** @param {string} nanoseconds */
  const sinceBase = (nanoseconds) => Number(BigInt(nanoseconds) - base) / 1e6;
  const first = crossTimestamp(resolution);
  const exchanges = [];
  for (let i = 0; i < SAMPLES; i++) {
    const { t1, t4, body } = await exchange();
    exchanges.push({ t1, t2: sinceBase(body.receive), t3: sinceBase(body.transmit), t4 });
  }
  const last = crossTimestamp(resolution);
  const elapsed = last.monotonic - first.monotonic;
  if (Math.abs(last.clock - first.clock - elapsed) > STEP_MS + elapsed / 1000) return null;
  const interval = intersect(exchanges, last.monotonic, resolution);
  if (interval === null) return null;
  const origin = Number(base) / 1e6;
  const tied = last.clock - last.monotonic;
  const shift = origin - tied;
  const { lower, upper } = interval;
  return {
    offset: (lower + upper) / 2 + shift,
    error: (upper - lower) / 2 + last.error,
    /** The server's time minus `performance.now()`. */
    server: (lower + upper) / 2 + origin,
    /** When it was made: `performance.now()`. */
    at: last.monotonic,
    /** The clock minus `performance.now()`. */
    tied,
    /** Turns an offset from the monotonic timeline into one from the clock. */
    shift,
    interval,
    exchanges,
  };
}

/** @typedef {NonNullable<Awaited<ReturnType<typeof measure>>>} Measurement */

/**
 * Has the clock left the timeline on which it was measured: was it set, or did the machine sleep?
 *
 * @param {Measurement} measurement
 */
export function wasSet({ tied, at }) {
  const now = performance.now();
  return Math.abs(Date.now() - now - tied) > STEP_MS + (now - at) / 1000;
}
