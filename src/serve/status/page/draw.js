// @ts-check
/// <reference lib="dom" />
/**
 * Draws on the page what was measured and what the server says of itself.
 *
 * @module
 */

/** @import { Measurement } from "./measure.js" */
import { delayOf, SAMPLES } from "./measure.js";
import { bound, duration, rough, rounded, shown, signed, verdict } from "./format.js";

/**
 * An element of the page.
 *
 * @param {string} id
 */
export const byId = (id) => /** @type {HTMLElement} */ (document.getElementById(id));

/**
 * A new element of SVG.
 *
 * @param {string} name
 * @param {Record<string, string | number>} attributes
 */
function svg(name, attributes, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  element.textContent = text;
  return element;
}

/**
 * Draws what each exchange proves, one below the other.
 *
 * @param {Measurement} measurement
 */
function drawExchanges({ exchanges, interval, shift, offset, error }) {
  const chart = byId("exchanges");
  const { width, height } = chart.getBoundingClientRect();
  const bottom = height - 22;
  const delays = exchanges.map(delayOf).sort((a, b) => a - b);
  const middle = (interval.lower + interval.upper) / 2;
  // What is wider than most goes beyond the edges.
  const reach = Math.max(0.65 * (delays[SAMPLES / 2] ?? 0), interval.upper - interval.lower);
  /** @param {number} value */
  const x = (value) => width * (0.5 + (value - middle) / (2 * reach));
  /** @param {number} value */
  const clamped = (value) => Math.max(0, Math.min(width, x(value)));
  const parts = [svg("rect", {
    class: "shade",
    x: x(interval.lower),
    y: 0,
    width: Math.max(1, x(interval.upper) - x(interval.lower)),
    height: bottom,
  })];
  const zero = x(-shift);
  if (zero >= 0 && zero <= width) {
    parts.push(svg("line", { class: "zero", x1: zero, x2: zero, y1: 0, y2: bottom }));
  }
  exchanges.forEach(({ t1, t2, t3, t4 }, i) => {
    const y = (i + 0.5) * bottom / SAMPLES;
    const [x1, x2] = [clamped(t3 - t4), clamped(t2 - t1)];
    parts.push(svg("line", { class: "bar", x1, x2, y1: y, y2: y }));
    const dot = x((t2 - t1 + t3 - t4) / 2);
    if (dot >= 0 && dot <= width) {
      parts.push(svg("circle", { class: "dot", cx: dot, cy: y, r: 2.5 }));
    }
  });
  parts.push(svg("line", { class: "axis", x1: 0, x2: width, y1: bottom, y2: bottom }));
  const labels = /** @type {const} */ ([
    [0, "start", signed(middle + shift - reach, reach)],
    [width, "end", signed(middle + shift + reach, reach)],
    [width / 2, "middle", `offset ${signed(offset, error)}`],
  ]);
  for (const [at, anchor, text] of labels) {
    parts.push(svg("text", { x: at, y: height - 6, "text-anchor": anchor }, text));
  }
  chart.replaceChildren(...parts);
}

/**
 * Shows a measurement.
 *
 * @param {Measurement} measurement
 */
export function showMeasurement(measurement) {
  const { offset, error, exchanges } = measurement;
  byId("verdict").textContent = verdict(offset, error);
  const { sign, size, bound } = shown(offset, error);
  byId("details").textContent =
    `offset ${sign}${size} ${bound} (add it to your clock); ${SAMPLES} exchanges, ` +
    `least delay ${rough(Math.min(...exchanges.map(delayOf)))}`;
  drawExchanges(measurement);
}

/**
 * Shows that nothing is known of this browser's clock.
 *
 * @param {string} reason A sentence.
 */
export function showNoMeasurement(reason) {
  byId("verdict").textContent = reason;
  byId("details").textContent = "\u00a0";
  byId("clock").textContent = "--:--:--";
  byId("exchanges").replaceChildren();
}

/**
 * The line of a figure over ten minutes, and the area below it.
 *
 * @param {readonly number[]} values The newest last.
 * @param {number} length How many there are in ten minutes.
 * @param {number} width
 * @param {number} top
 * @param {number} bottom
 */
function curve(values, length, width, top, bottom) {
  const most = Math.max(...values, 1e-9);
  /** @param {number} i */
  const x = (i) => (width * (1 - (values.length - 1 - i) / (length - 1))).toFixed(1);
  const points = values.map((value, i) =>
    `${x(i)},${(bottom - value / most * (bottom - top)).toFixed(1)}`
  ).join(" ");
  return [
    svg("polygon", { class: "shade", points: `${x(0)},${bottom} ${points} ${width},${bottom}` }),
    svg("polyline", { class: "accent", points }),
    svg("line", { class: "axis", x1: 0, x2: width, y1: bottom, y2: bottom }),
  ];
}

/**
 * Draws the last ten minutes of a figure.
 *
 * @param {string} id
 * @param {readonly number[]} values The newest last.
 * @param {number} length How many there are in ten minutes.
 */
function drawChart(id, values, length) {
  const chart = byId(id);
  const { width, height } = chart.getBoundingClientRect();
  const peak = `peak ${rounded(Math.max(...values, 0))}`;
  chart.setAttribute("aria-label", peak);
  chart.replaceChildren(
    ...curve(values, length, width, 14, height - 16),
    svg("text", { x: 0, y: 10 }, peak),
    svg("text", { x: 0, y: height - 2 }, "10 min ago"),
    svg("text", { x: width, y: height - 2, "text-anchor": "end" }, "now"),
  );
}

/**
 * What `/status` says, as `src/serve/status/site.ts` writes it. Durations are in seconds.
 *
 * @typedef {{
 *   version: string,
 *   uptime: number,
 *   trouble: string | null,
 *   addresses: string[],
 *   stratum: number,
 *   clock: { synchronised: boolean, estimated_error: number, maximum_error: number } | null,
 *   replies: number,
 *   connections: { open: number, total: number },
 *   history: {
 *     step: number,
 *     replies: number[],
 *     connections: number[],
 *     refusals: Record<string, number[]>,
 *   },
 * }} Status
 */

/**
 * What keeps the server's own clock right.
 *
 * @param {Status["clock"]} clock
 */
function describeClock(clock) {
  if (clock === null) return "unknown: the kernel cannot be asked here";
  if (!clock.synchronised) return "not synchronised: it is its own reference";
  const [probable, most] = [clock.estimated_error, clock.maximum_error];
  return `synchronised, probably ${bound(probable * 1000)}, at most ${bound(most * 1000)}`;
}

/**
 * Shows what the server says of itself.
 *
 * @param {Status} status
 */
export function showStatus(status) {
  const { history: { step, replies, connections, refusals }, clock } = status;
  const length = 600 / step;
  const kinds = Object.entries(refusals);
  const refused = replies.map((_, i) =>
    kinds.reduce((sum, [, values]) => sum + (values[i] ?? 0), 0)
  );
  drawChart("replies-chart", replies, length);
  drawChart("connections-chart", connections, length);
  drawChart("refusals-chart", refused, length);
  byId("replies").textContent = rounded(replies.at(-1) ?? 0);
  byId("connections").textContent = rounded(status.connections.open);
  byId("refusals").textContent = rounded(refused.at(-1) ?? 0);
  const small = { class: "small", viewBox: "0 0 100 20", preserveAspectRatio: "none" };
  byId("reasons").replaceChildren(...kinds.map(([reason, values]) => {
    const item = document.createElement("li");
    const count = document.createElement("span");
    count.textContent = `${rounded(values.reduce((a, b) => a + b, 0) * step)} in 10 min`;
    const chart = svg("svg", small);
    chart.append(...curve(values, length, 100, 1, 19));
    item.append(reason, chart, count);
    return item;
  }));
  const total = rounded(status.connections.total);
  const facts = {
    "Server's own clock": describeClock(clock),
    "Stratum": String(status.stratum),
    "Listening on": status.addresses.join(", "),
    "In total": `${rounded(status.replies)} replies on ${total} connections`,
    "Uptime": duration(Math.floor(status.uptime), 1000),
    "Version": status.version,
  };
  byId("facts").replaceChildren(
    ...Object.entries(facts).flatMap(([name, text]) => {
      const [term, description] = [document.createElement("dt"), document.createElement("dd")];
      term.textContent = name;
      description.textContent = text;
      return [term, description];
    }),
  );
}

/**
 * Shows what is wrong with the server.
 *
 * @param {string | null} text A sentence; `null` if nothing is.
 * @param {boolean} stale Is the rest of the page out of date?
 */
export function showTrouble(text, stale) {
  byId("trouble").hidden = text === null;
  byId("trouble").textContent = text ?? "";
  document.body.classList.toggle("stale", stale);
}
