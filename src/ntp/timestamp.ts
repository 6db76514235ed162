/**
 * NTP's number formats, and the only place where they are converted.
 *
 * An instant is a `bigint` of nanoseconds since the Unix epoch: it has a
 * sign, does not wrap and can be compared. An NTP timestamp is a `bigint` of
 * 64 unsigned bits, seconds since 1900 in 32.32 fixed point, that wraps every
 * 2^32 seconds (an era) and is therefore only ever subtracted modulo 2^64.
 *
 * @module
 */

/** Nanoseconds in a second. */
export const SECOND = 1_000_000_000n;

/** Nanoseconds from the NTP epoch (1900) to the Unix epoch (RFC 5905, figure 4). */
const UNIX_EPOCH_NS = 2_208_988_800n * SECOND;

/** Half of the last bit, to round a 32-bit shift to nearest. */
const HALF = 1n << 31n;

/**
 * The NTP timestamp of an instant, rounded down: never later than the instant.
 *
 * @param instant Nanoseconds since the Unix epoch, of any era.
 * @returns 64 bits of 32.32 fixed-point seconds since 1900, modulo 2^64.
 */
export function toTimestamp(instant: bigint): bigint {
  const scaled = (instant + UNIX_EPOCH_NS) << 32n;
  const quotient = scaled / SECOND;
  // BigInt division rounds towards zero, which is up before 1900.
  const floor = scaled < 0n && quotient * SECOND !== scaled ? quotient - 1n : quotient;
  return BigInt.asUintN(64, floor);
}

/**
 * Writes the NTP timestamp of an instant, as {@linkcode toTimestamp} makes it, in a third of the
 * time: a server does this twice for each request.
 *
 * @param at Where in `bytes` its eight bytes begin.
 * @param instant Nanoseconds since the Unix epoch, not negative.
 */
export function writeTimestamp(bytes: Uint8Array, at: number, instant: bigint): void {
  const seconds = Number(instant / SECOND);
  // The product is exact, and so is the floor of the quotient: its fractions are multiples of
  // 1/1953125, and a double below 2^32 is off by 1/4194304 at most.
  const fraction = Math.floor(Number(instant % SECOND) * 0x1_0000_0000 / 1e9);
  writeWord(bytes, at, (seconds + 2_208_988_800) % 0x1_0000_0000);
  writeWord(bytes, at + 4, fraction);
}

function writeWord(bytes: Uint8Array, at: number, word: number): void {
  bytes[at] = word >>> 24;
  bytes[at + 1] = word >>> 16;
  bytes[at + 2] = word >>> 8;
  bytes[at + 3] = word;
}

/**
 * The instant of an NTP timestamp, in the era that puts it nearest to
 * another instant (RFC 5905, section 6). Inverse of {@linkcode toTimestamp}
 * for instants within 68 years of `near`.
 *
 * @param timestamp 64 bits of 32.32 fixed-point seconds since 1900.
 * @param near Nanoseconds since the Unix epoch.
 * @returns Nanoseconds since the Unix epoch, rounded to nearest.
 */
export function fromTimestamp(timestamp: bigint, near: bigint): bigint {
  return near + toNanoseconds(timestampDifference(timestamp, toTimestamp(near)));
}

/**
 * `later - earlier`, modulo 2^64 and signed: right whatever the eras as long
 * as the two are less than 68 years apart.
 *
 * @returns Units of 2^-32 seconds.
 */
export function timestampDifference(later: bigint, earlier: bigint): bigint {
  return BigInt.asIntN(64, later - earlier);
}

/** A difference of NTP timestamps (units of 2^-32 s) in nanoseconds, rounded to nearest. */
export function toNanoseconds(difference: bigint): bigint {
  return (difference * SECOND + HALF) >> 32n;
}

/** Seconds in nanoseconds, rounded to nearest: exact even for decades, where a product of doubles is not. */
export function nanoseconds(seconds: number): bigint {
  const whole = Math.trunc(seconds);
  return BigInt(whole) * SECOND + BigInt(Math.round((seconds - whole) * 1e9));
}

/**
 * Seconds in the 32-bit short format (16.16), rounded up since they are error
 * bounds, and clamped to what the format holds.
 */
export function toShort(seconds: number): number {
  return Math.min(Math.max(Math.ceil(seconds * 65536), 0), 0xffff_ffff);
}

/** Seconds of a number in the 32-bit short format (16.16). */
export function fromShort(short: number): number {
  return short / 65536;
}
