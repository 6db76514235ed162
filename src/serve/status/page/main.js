// @ts-check
/// <reference lib="dom" />
/**
 * The status page's own program: it asks the server how it is, and measures this browser's clock.
 *
 * @module
 */

/** @import { Measurement } from "./measure.js" */
import { get, measure, wasSet } from "./measure.js";
import { duration } from "./format.js";
import { byId, showMeasurement, showNoMeasurement, showStatus, showTrouble } from "./draw.js";

/** Between two requests for the server's status. */
const POLL_MS = 2000;

/** Between two measurements. */
const MEASURE_MS = 10_000;

/** Measurements in a row that may fail because a clock is set meanwhile. */
const ATTEMPTS = 3;

/** @type {Measurement | null} */
let latest = null;

/** When the server last answered: `performance.now()`; 0 before it has. */
let heard = 0;

/**
 * The version of the server that this page came from.
 *
 * @type {string | undefined}
 */
let version;

function showTime() {
  if (latest === null) return;
  const now = new Date(performance.now() + latest.server).toISOString();
  byId("clock").textContent = now.slice(11, 21);
  byId("date").textContent = `${now.slice(0, 10)}, the server's time, UTC`;
}

/**
 * Forgets the last measurement.
 *
 * @param {string} reason A sentence.
 */
function forget(reason) {
  latest = null;
  showNoMeasurement(reason);
}

/** Measures, if it is time to. */
async function remeasure() {
  if (latest !== null && wasSet(latest)) forget("Your clock was set: measuring again…");
  if (latest !== null && performance.now() - latest.at < MEASURE_MS) return;
  try {
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const measured = await measure();
      if (measured === null) continue;
      latest = measured;
      return showMeasurement(measured);
    }
    forget("Your clock cannot be measured: it, or the server's, was set each time.");
  } catch (error) {
    forget(`Your clock cannot be measured: ${/** @type {Error} */ (error).message}.`);
  }
}

/** Asks the server how it is, shows it, and measures if it is time to. */
async function poll() {
  let status;
  try {
    ({ body: status } = await get("/status"));
  } catch (error) {
    // A failed fetch is a TypeError, and has nothing to add.
    const reason = error instanceof TypeError ? "" : `: ${/** @type {Error} */ (error).message}`;
    const silence = duration(Math.round((performance.now() - heard) / 1000), 1000);
    const since = heard === 0 ? "" : ` (last answer ${silence} ago)`;
    showTrouble(`The server cannot be reached${reason}; trying again${since}.`, true);
    // As soon as it is back, the clock is measured anew.
    latest &&= { ...latest, at: -Infinity };
    return;
  }
  heard = performance.now();
  version ??= status.version;
  // Another program serves another page.
  if (status.version !== version) location.reload();
  showTrouble(status.trouble, false);
  showStatus(status);
  await remeasure();
}

byId("host").textContent = location.host;
setInterval(showTime, 100);
addEventListener("resize", () => latest && showMeasurement(latest));
for (;;) {
  if (!document.hidden) await poll();
  await new Promise((resolve) => setTimeout(resolve, POLL_MS));
}
