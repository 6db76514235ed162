// @ts-check
/**
 * Numbers and sentences for people. Durations are in milliseconds.
 *
 * @module
 */

/** Units and their lengths in milliseconds: a duration is shown in one of these... */
const UNITS = /** @type {const} */ ([["s", 1000], ["ms", 1], ["µs", 1e-3]]);

/** ...after as many of these as it contains. */
const LONG_UNITS = /** @type {const} */ ([["d", 86_400_000], ["h", 3_600_000], ["min", 60_000]]);

/**
 * A duration in the unit that suits it.
 *
 * @param {number} count How many times `place` it is.
 * @param {number} place Milliseconds, a power of ten: nothing smaller is shown.
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

/**
 * The place of the second digit, a power of ten.
 *
 * @param {number} milliseconds
 */
const secondDigit = (milliseconds) =>
  10 ** (Math.floor(Math.log10(Math.max(milliseconds, 1e-3))) - 1);

/**
 * A duration with two digits, rounded.
 *
 * @param {number} milliseconds
 */
export function rough(milliseconds) {
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
 * An offset's size with only the digits that its bound leaves it, and the bound, to which the
 * rounding is added: what is shown holds.
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
 * An offset with its sign.
 *
 * @param {number} offset Milliseconds.
 * @param {number} error Milliseconds.
 */
export function signed(offset, error) {
  const { sign, size } = shown(offset, error);
  return sign + size;
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

/**
 * A count or a rate.
 *
 * @param {number} value
 */
export const rounded = (value) =>
  value >= 100 || Number.isInteger(value)
    ? Math.round(value).toLocaleString("en")
    : value.toFixed(1);
