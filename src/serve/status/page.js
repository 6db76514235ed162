/**
 * The status page's own program. It measures this browser's clock as `tsync
 * sync` does (`src/estimate/`), with what a browser has to tell the time by.
 * Times are numbers of milliseconds here, on three timelines: the browser's
 * monotonic one (`performance.now()`), its clock (`Date.now()`), and the
 * server's clock, of which a large constant is taken away.
 */

/** Exchanges in a measurement, after one that opens the connection. */
const SAMPLES = 16;

/** Milliseconds between two looks at the server, and between two measurements. */
const LOOK = 2000;
const MEASURE = 10_000;

/** Milliseconds that the server has for an answer. */
const PATIENCE = 5000;

/** As `MAX_DRIFT` in `src/estimate/envelope.ts`. */
const MAX_DRIFT = 100e-6;

/** Milliseconds by which the clock may leave the monotonic timeline in a measurement, but for slewing. */
const STEP = 5;

/** Measurements in a row that a clock which is set meanwhile may spoil. */
const ATTEMPTS = 3;

/**
 * @typedef {{ t1: number, t2: number, t3: number, t4: number }} Exchange Milliseconds.
 * @typedef {{ lower: number, upper: number }} Interval Of offsets, server less browser.
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

/** Units with their lengths in milliseconds: one of them, or for what is long all that it takes. */
const UNITS = [["s", 1000], ["ms", 1], ["µs", 1e-3]];
const LONG_UNITS = [["d", 86_400_000], ["h", 3_600_000], ["min", 60_000]];

/**
 * A duration in the unit that suits it.
 *
 * @param {number} count How many of
 * @param {number} place so many milliseconds, a power of ten: what is less is not shown.
 */
export function duration(count, place) {
  const size = Math.max(count, 1) * place;
  const [unit, length] = UNITS.find((each) => size >= each[1]) ?? UNITS[2];
  const parts = [];
  let rest = count;
  for (const [unit, length] of LONG_UNITS) {
    const whole = Math.floor(rest * place / length);
    if (whole === 0 && parts.length === 0) continue;
    rest -= Math.round(whole * length / place);
    parts.push(`${whole}\u00a0${unit}`);
  }
  const digits = Math.max(0, Math.round(Math.log10(length / place)));
  parts.push(`${(rest * place / length).toFixed(digits)}\u00a0${unit}`);
  return parts.join(" ");
}

/** The power of ten that is the second digit of some milliseconds. */
const secondDigit = (milliseconds) =>
  10 ** (Math.floor(Math.log10(Math.max(milliseconds, 1e-3))) - 1);

/** With two digits, rounded. */
function rough(milliseconds) {
  const place = secondDigit(milliseconds);
  return duration(Math.round(milliseconds / place), place);
}

/**
 * An error bound: two digits, rounded up.
 *
 * @param {number} milliseconds
 */
export function bound(milliseconds) {
  const place = secondDigit(milliseconds);
  return `±\u00a0${duration(Math.ceil(milliseconds / place - 1e-9), place)}`;
}

/**
 * An offset's size with only the digits that its bound leaves it, and the bound, with what
 * rounding the offset loses: what is shown holds.
 *
 * @param {number} offset Milliseconds.
 * @param {number} error Milliseconds.
 */
export function shown(offset, error) {
  const place = secondDigit(error);
  const count = Math.round(Math.abs(offset) / place);
  const lost = Math.abs(Math.abs(offset) - count * place);
  const sign = count === 0 ? "" : offset < 0 ? "−" : "+";
  return { sign, size: duration(count, place), bound: bound(error + lost) };
}

/**
 * What the measurement says of the clock, in words.
 *
 * @param {number} offset Milliseconds: add them to the browser's clock.
 * @param {number} error Milliseconds.
 */
export function verdict(offset, error) {
  if (Math.abs(offset) <= error) {
    return `Your clock agrees with the server's: no difference can be seen, ${bound(error)}.`;
  }
  const { size, bound: most } = shown(offset, error);
  return `Your clock is ${size} ${offset > 0 ? "slow" : "fast"}, ${most}.`;
}

/** Milliseconds, as coarse as browsers make them: the least step that can be seen. */
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
 * What both of the browser's timelines show at one moment: when its clock
 * goes on to the next millisecond, which is all that it shows. The best of some attempts.
 *
 * @param {number} resolution
 */
function crossTimestamp(resolution, attempts = 5) {
  let best = { monotonic: 0, clock: 0, error: Infinity };
  const patience = performance.now() + 200;
  for (let attempt = 0; attempt < attempts;) {
    // Read before the clock that still showed the millisecond before.
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
      if (after > patience) {
        if (best.error < Infinity) return best;
        throw new Error("your clock does not go on from one millisecond to the next");
      }
      before = start;
    }
  }
  return best;
}

/** @param {string} path */
async function get(path) {
  const response = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
  // Read before anything else is waited for.
  const arrived = performance.now();
  if (!response.ok) throw new Error((await response.text()).trim());
  return { arrived, body: await response.json() };
}

/**
 * Asks for the time. The browser's network stack has timestamps of its own (Resource Timing): it
 * starts no later than it sends, and has received no earlier than the bytes came. Between them
 * lies none of what a page waits for.
 */
async function exchange() {
  performance.clearResourceTimings();
  const before = performance.now();
  const { arrived, body } = await get("/time");
  const { requestStart: t1, responseStart: t4 } = performance.getEntriesByType("resource").at(-1) ??
    {};
  return before <= t1 && t1 <= t4 && t4 <= arrived
    ? { t1, t4, body }
    : { t1: before, t4: arrived, body };
}

/**
 * Measures this browser's clock.
 *
 * @returns `null` if a clock was set meanwhile.
 */
async function measure() {
  const resolution = resolutionOf();
  await get("/time");
  const first = crossTimestamp(resolution);
  const exchanges = [];
  let base;
  for (let i = 0; i < SAMPLES; i++) {
    const { t1, t4, body } = await exchange();
    base ??= BigInt(body.receive);
    const [t2, t3] = [body.receive, body.transmit].map((text) => Number(BigInt(text) - base) / 1e6);
    exchanges.push({ t1, t2, t3, t4 });
  }
  const last = crossTimestamp(resolution);
  const elapsed = last.monotonic - first.monotonic;
  if (Math.abs(last.clock - first.clock - elapsed) > STEP + elapsed / 1000) return null;
  const interval = intersect(exchanges, last.monotonic, resolution);
  if (interval === null) return null;
  const origin = Number(base) / 1e6;
  /** From an offset to the monotonic timeline to the one to the clock. */
  const shift = origin - (last.clock - last.monotonic);
  const { lower, upper } = interval;
  return {
    offset: (lower + upper) / 2 + shift,
    error: (upper - lower) / 2 + last.error,
    /** The server's time less `performance.now()`. */
    server: (lower + upper) / 2 + origin,
    at: last.monotonic,
    /** The clock less `performance.now()`. */
    tied: last.clock - last.monotonic,
    shift,
    interval,
    exchanges,
  };
}

/**
 * @param {string} name
 * @param {Record<string, string | number>} attributes
 * @param {string} [text]
 */
function svg(name, attributes, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  element.textContent = text;
  return element;
}

/** @param {string} id */
const byId = (id) => document.getElementById(id);

/** An offset with its sign. */
function signed(offset, error) {
  const { sign, size } = shown(offset, error);
  return sign + size;
}

/**
 * Draws what each exchange proves, one below the other.
 *
 * @param measured As made by `measure`.
 */
function drawExchanges({ exchanges, interval, shift, offset, error }) {
  const chart = byId("exchanges");
  const { width, height } = chart.getBoundingClientRect();
  const bottom = height - 22;
  const halves = exchanges.map(({ t1, t2, t3, t4 }) => (t4 - t1 - (t3 - t2)) / 2).sort((a, b) =>
    a - b
  );
  const middle = (interval.lower + interval.upper) / 2;
  // What is wider than most goes beyond the edges.
  const reach = Math.max(1.3 * halves[SAMPLES / 2], interval.upper - interval.lower);
  const x = (value) => width * (0.5 + (value - middle) / (2 * reach));
  const clamp = (value) => Math.max(0, Math.min(width, x(value)));
  const parts = [svg("rect", {
    class: "shade",
    x: x(interval.lower),
    y: 0,
    width: Math.max(1, x(interval.upper) - x(interval.lower)),
    height: bottom,
  })];
  const zero = x(-shift);
  const sees = zero >= 0 && zero <= width;
  if (sees) parts.push(svg("line", { class: "zero", x1: zero, x2: zero, y1: 0, y2: bottom }));
  exchanges.forEach(({ t1, t2, t3, t4 }, i) => {
    const y = (i + 0.5) * bottom / SAMPLES;
    parts.push(
      svg("line", { class: "bar", x1: clamp(t3 - t4), x2: clamp(t2 - t1), y1: y, y2: y }),
    );
    const dot = x((t2 - t1 + t3 - t4) / 2);
    if (dot >= 0 && dot <= width) {
      parts.push(svg("circle", { class: "dot", cx: dot, cy: y, r: 2.5 }));
    }
  });
  parts.push(svg("line", { class: "axis", x1: 0, x2: width, y1: bottom, y2: bottom }));
  const labels = [
    [0, "start", signed(middle + shift - reach, reach)],
    [width, "end", signed(middle + shift + reach, reach)],
    [width / 2, "middle", `offset ${signed(offset, error)}`],
  ];
  for (const [at, anchor, text] of labels) {
    parts.push(svg("text", { x: at, y: height - 6, "text-anchor": anchor }, text));
  }
  chart.replaceChildren(...parts);
}

/** @param {number} value */
const rounded = (value) =>
  value >= 100 || Number.isInteger(value)
    ? Math.round(value).toLocaleString("en")
    : value.toFixed(1);

/**
 * The line of a figure over ten minutes, and what is under it.
 *
 * @param {readonly number[]} values The newest last.
 * @param {number} length How many there are in ten minutes.
 */
function curve(values, length, width, top, bottom) {
  const most = Math.max(...values, 1e-9);
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

/** Draws the last ten minutes of a figure. */
function drawChart(id, values, length) {
  const chart = byId(id);
  const { width, height } = chart.getBoundingClientRect();
  chart.setAttribute("aria-label", `at most ${rounded(Math.max(...values, 0))}`);
  chart.replaceChildren(
    ...curve(values, length, width, 14, height - 16),
    svg("text", { x: 0, y: 10 }, `at most ${rounded(Math.max(...values, 0))}`),
    svg("text", { x: 0, y: height - 2 }, "10 min ago"),
    svg("text", { x: width, y: height - 2, "text-anchor": "end" }, "now"),
  );
}

/** @param {any} status What `/status` says. */
function showStatus(status) {
  const { history: { step, replies, connections, refusals }, clock } = status;
  const length = 600 / step;
  const kinds = Object.entries(refusals);
  const refused = replies.map((_, i) => kinds.reduce((sum, [, values]) => sum + values[i], 0));
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
  const error = (seconds) => bound(seconds * 1000);
  const facts = {
    "Server's own clock": clock === null
      ? "what keeps it right cannot be asked here"
      : clock.synchronised
      ? `synchronised, probably ${error(clock.estimated_error)}, at most ${
        error(clock.maximum_error)
      }`
      : "not synchronised: it is its own reference",
    "Stratum": String(status.stratum),
    "Listening on": status.addresses.join(", "),
    "In all": `${rounded(status.replies)} replies on ${
      rounded(status.connections.total)
    } connections`,
    "Up for": duration(Math.floor(status.uptime), 1000),
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

/** The last measurement. */
let latest = null;
/** When the server was last heard of: `performance.now()`. */
let heard = 0;
/** The version of the server that this page came from. */
let version;

function showTime() {
  if (latest === null) return;
  const now = new Date(performance.now() + latest.server).toISOString();
  byId("clock").textContent = now.slice(11, 21);
  byId("date").textContent = `${now.slice(0, 10)}, the server's time, UTC`;
}

function showMeasurement() {
  if (latest === null) return;
  const { offset, error, exchanges } = latest;
  byId("verdict").textContent = verdict(offset, error);
  const delays = exchanges.map(({ t1, t2, t3, t4 }) => t4 - t1 - (t3 - t2));
  const { sign, size, bound } = shown(offset, error);
  byId("details").textContent =
    `offset ${sign}${size} ${bound} (add it to your clock); ${SAMPLES} exchanges, ` +
    `delay ${rough(Math.min(...delays))} at best`;
  drawExchanges(latest);
}

/** Nothing is known of this browser's clock, for a reason. */
function showNoMeasurement(reason) {
  latest = null;
  byId("verdict").textContent = reason;
  byId("details").textContent = "\u00a0";
  byId("clock").textContent = "--:--:--";
  byId("exchanges").replaceChildren();
}

/** @param {string | null} text What is wrong with the server, or that nobody knows. */
function showTrouble(text, stale = false) {
  byId("trouble").hidden = text === null;
  byId("trouble").textContent = text ?? "";
  document.body.classList.toggle("stale", stale);
}

/** Has the clock left the timeline on which it was measured: was it set, or did the machine sleep? */
function wasSet({ tied, at }) {
  const now = performance.now();
  return Math.abs(Date.now() - now - tied) > STEP + (now - at) / 1000;
}

/** Measures, if it is time to. */
async function remeasure() {
  if (latest !== null && wasSet(latest)) showNoMeasurement("Your clock was set: measuring again…");
  if (latest !== null && performance.now() - latest.at < MEASURE) return;
  try {
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const measured = await measure();
      if (measured === null) continue;
      latest = measured;
      return showMeasurement();
    }
    showNoMeasurement("Your clock, or the server's, was set whenever it was measured.");
  } catch (error) {
    showNoMeasurement(`Your clock cannot be measured: ${error.message}.`);
  }
}

/** Looks at the server, and now and then measures. */
async function look() {
  let status;
  try {
    ({ body: status } = await get("/status"));
  } catch (error) {
    const since = heard === 0
      ? ""
      : ` for ${duration(Math.round((performance.now() - heard) / 1000), 1000)}`;
    const reason = error instanceof TypeError ? "" : ` (${error.message})`;
    showTrouble(`The server cannot be reached${since}${reason}; trying again.`, true);
    latest &&= { ...latest, at: -Infinity }; // As soon as it is back, it is measured anew.
    return;
  }
  heard = performance.now();
  version ??= status.version;
  // Another program serves another page.
  if (status.version !== version) location.reload();
  showTrouble(status.trouble);
  showStatus(status);
  await remeasure();
}

if (typeof document !== "undefined") {
  byId("host").textContent = location.host;
  setInterval(showTime, 100);
  addEventListener("resize", showMeasurement);
  for (;;) {
    if (!document.hidden) await look();
    await new Promise((resolve) => setTimeout(resolve, LOOK));
  }
}
