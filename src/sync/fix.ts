/**
 * From what servers' exchanges prove to a fix: which servers are believed, and
 * what the time is. Pure.
 *
 * @module
 */

import type { OptionName } from "../net/errors.ts";
import type { CrossTimestamp } from "../clock/clock.ts";
import { type Bounds, extrapolate, jitter, leastDelay } from "../estimate/envelope.ts";
import {
  delay,
  type Exchange,
  type Interval,
  offset as exchangeOffset,
} from "../estimate/exchange.ts";
import { select, type Selection } from "../estimate/selection.ts";
import { endpoint, type ServerAddress, type TransportName } from "../net/address.ts";
import { type Leap, type Packet, referenceIdText } from "../ntp/packet.ts";
import { nanoseconds } from "../ntp/timestamp.ts";
import type { Measurement } from "./burst.ts";
import type { Failure } from "./failure.ts";

/** What came of asking the servers. */
export interface Fix {
  /** Did a majority of the servers that answered agree? If not, the figures are `null`. */
  readonly synchronised: boolean;
  /** What the local clock showed at the moment of the fix: nanoseconds since the Unix epoch. */
  readonly localTime: bigint;
  /** Seconds to add to the local clock to get the servers' time. */
  readonly offset: number | null;
  /**
   * The most by which the offset can be wrong, in either direction, in seconds. If several servers
   * were asked, it includes how wrong they can be themselves.
   */
  readonly errorBound: number | null;
  /** Seconds: the least round trip to a truechimer. */
  readonly delay: number | null;
  /** The leap second that is due, as the truechimer with the least delay says. */
  readonly leap: Leap | null;
  /**
   * Do most of the servers that were asked agree, not merely most of those that answered? If not, a
   * liar may have been the only one to answer.
   */
  readonly isMajority: boolean;
  /** One for each server asked, in order. */
  readonly servers: readonly ServerReport[];
}

/** What is known of one server. */
export interface ServerReport {
  /** As the user wrote it. */
  readonly name: string;
  /** Its IP address and port, if it is known. */
  readonly address: string | null;
  /** How it was asked. */
  readonly transport: TransportName;
  /** The name of the server at the same address that votes for both; `null` if this one votes itself. */
  readonly sameAs: string | null;
  /**
   * Does it agree with the majority (RFC 5905, section 11.2.1)? `falseticker`: it does not, or
   * there is none. `unreachable`: it did not answer. `invalid`: what it said cannot be believed.
   */
  readonly status: "truechimer" | "falseticker" | "unreachable" | "invalid";
  /** What was measured; `null` if the server is unreachable or invalid. */
  readonly figures: ServerFigures | null;
  /** A sentence that says why there are no figures. */
  readonly error: string | null;
  /** What would avert that, if an option would. */
  readonly option: OptionName | null;
}

/** What was measured of one server. */
export interface ServerFigures {
  /** Seconds to add to the local clock to get this server's time. */
  readonly offset: number;
  /** The most by which that can be wrong, in seconds, if the server itself is right. */
  readonly errorBound: number;
  /** Seconds: the least round trip. */
  readonly delay: number;
  /**
   * Seconds: how much the exchanges' offsets scatter about that of the one with the least delay, as
   * a root mean square (RFC 5905, section 10); 0 if there is only one.
   */
  readonly jitter: number;
  /** What each exchange alone says, in order: seconds. */
  readonly exchanges: readonly { readonly offset: number; readonly delay: number }[];
  /** 1: it has a reference clock; 2 to 15: it gets its time from a server. */
  readonly stratum: number;
  /** Its reference: letters such as `GPS` or `LOCL`, else dotted, since it is usually an IPv4 address. */
  readonly referenceId: string;
  /** Seconds, round trip from it to its reference clock. */
  readonly rootDelay: number;
  /** Seconds, its greatest error with respect to its reference clock. */
  readonly rootDispersion: number;
  /** The leap second that it announces. */
  readonly leap: Leap;
  /** Who took T4: the kernel, if it did each time. */
  readonly timestamps: "user" | "kernel";
}

/** A fix, and the same on the monotonic timeline. */
export interface Poll {
  readonly fix: Fix;
  /**
   * The offset from the clock's monotonic timeline to the servers' time; `null` without a fix. For
   * the moment of the fix, or, of a single server, for that at which it was bounded.
   */
  readonly bounds: Bounds | null;
  /** Seconds by which the servers' time can be wrong beyond the bounds: a single one's root distance. */
  readonly rootDistance: number;
  /** The exchanges that prove it; empty without a fix, or if they are several servers'. */
  readonly exchanges: readonly Exchange[];
}

/** Lets the servers vote, each address and port once, and states the result for the moment of `end`. */
export function combine(
  servers: readonly ServerAddress[],
  outcomes: readonly (Measurement | Failure)[],
  end: CrossTimestamp,
): Poll {
  const speakers = speakersFor(outcomes);
  const voters = [...new Set(speakers)];
  const measured = voters.map((i) => outcomes[i]!)
    .filter((outcome) => outcome.status === "measured");
  const offsetOf = ({ bounds }: Measurement) =>
    systemOffset(extrapolate(bounds, end.monotonic), end);
  const selection = vote(voters.length, measured, measured.map(offsetOf));
  const reports = servers.map(({ name, transport }, i): ServerReport => {
    const outcome = outcomes[i]!;
    const speaker = speakers[i]!;
    const sameAs = speaker === i ? null : servers[speaker]!.name;
    const { address } = outcome;
    const about = { name, address, transport, sameAs };
    if (outcome.status !== "measured") {
      const { status, error, option = null } = outcome;
      return { ...about, status, figures: null, error, option };
    }
    const voter = outcomes[speaker] as Measurement;
    const offset = offsetOf(outcome);
    const agrees = selection?.truechimers[measured.indexOf(voter)] &&
      overlap(offset, offsetOf(voter));
    const status = agrees ? "truechimer" : "falseticker";
    const figures = figuresOf(outcome, offset, end.realtime - end.monotonic);
    return { ...about, status, figures, error: null, option: null };
  });
  const truechimers = reports.filter(({ status, sameAs }) =>
    status === "truechimer" && sameAs === null
  );
  const nearest = truechimers.map(({ figures }) => figures!).sort((a, b) => a.delay - b.delay)[0];
  const fix: Fix = {
    synchronised: selection !== null,
    localTime: end.realtime,
    ...selection === null ? { offset: null, errorBound: null } : middle(selection.interval),
    delay: nearest?.delay ?? null,
    leap: nearest?.leap ?? null,
    isMajority: selection !== null && 2 * selection.agreeing > voters.length,
    servers: reports,
  };
  const [only, ...others] = measured.filter((_, i) => selection?.truechimers[i]);
  const isAlone = only !== undefined && voters.length === 1;
  const voted = selection === null ? null : monotonicBounds(selection.interval, end);
  return {
    fix,
    // What one server proves needs not be carried to the end: who keeps time knows the frequency.
    bounds: isAlone ? only.bounds : voted,
    rootDistance: isAlone ? rootDistance(only.packet) : 0,
    exchanges: only === undefined || others.length > 0 ? [] : only.exchanges,
  };
}

function overlap(a: Interval, b: Interval): boolean {
  return a.lower <= b.upper && b.lower <= a.upper;
}

/**
 * Which server votes for each: of those at the same address and port the first that was measured.
 * Else a server that is named twice would have two votes.
 */
function speakersFor(outcomes: readonly (Measurement | Failure)[]): number[] {
  const endpoints = outcomes.map(({ address }) => address === null ? null : endpoint(address));
  return endpoints.map((own, i) => {
    if (own === null) return i;
    const same = [...endpoints.keys()].filter((k) => endpoints[k] === own);
    return same.find((k) => outcomes[k]!.status === "measured") ?? same[0]!;
  });
}

/** The same fix, if nothing of it is believed. */
export function withoutFix(fix: Fix): Fix {
  const servers = fix.servers.map((server): ServerReport =>
    server.status === "truechimer" ? { ...server, status: "falseticker" } : server
  );
  const nothing = { offset: null, errorBound: null, delay: null, leap: null };
  return { ...fix, ...nothing, synchronised: false, isMajority: false, servers };
}

/** Turns the offset from the system clock into that from the monotonic timeline. */
function monotonicBounds(
  { lower, upper }: Interval,
  { monotonic, realtime }: CrossTimestamp,
): Bounds {
  const between = realtime - monotonic;
  return { lower: lower + between, upper: upper + between, at: monotonic };
}

/**
 * One server is taken at its word: the offset is that of its clock. When several
 * are asked, the question is what the true time is, and how far each can be from
 * it counts: its root distance.
 */
function vote(
  asked: number,
  measured: readonly Measurement[],
  offsets: readonly Interval[],
): Selection | null {
  if (asked === 1) return select(offsets);
  return select(measured.map(({ packet }, i) => {
    const distance = nanoseconds(rootDistance(packet));
    return { lower: offsets[i]!.lower - distance, upper: offsets[i]!.upper + distance };
  }));
}

/** How wrong a server can be, in seconds (RFC 5905, section 11.2.3). */
function rootDistance({ rootDelay, rootDispersion }: Packet): number {
  return rootDelay / 2 + rootDispersion;
}

/** Turns the offset from the monotonic timeline into that from the system clock. */
function systemOffset(
  { lower, upper }: Interval,
  { monotonic, realtime, error }: CrossTimestamp,
): Interval {
  const between = realtime - monotonic;
  return { lower: lower - between - error, upper: upper - between + error };
}

function figuresOf(
  { exchanges, packet, stamps }: Measurement,
  offset: Interval,
  between: bigint,
): ServerFigures {
  return {
    ...middle(offset),
    delay: seconds(leastDelay(exchanges)),
    jitter: jitter(exchanges),
    exchanges: exchanges.map((exchange) => ({
      offset: seconds(exchangeOffset(exchange) - between),
      delay: seconds(delay(exchange)),
    })),
    stratum: packet.stratum,
    referenceId: referenceIdText(packet.referenceId, packet.stratum),
    rootDelay: packet.rootDelay,
    rootDispersion: packet.rootDispersion,
    leap: packet.leap,
    timestamps: stamps,
  };
}

/** An interval's middle and half its width, in seconds, and wide enough for the rounding of the middle. */
function middle({ lower, upper }: Interval): { offset: number; errorBound: number } {
  const offset = seconds((lower + upper) >> 1n);
  const rounded = nanoseconds(offset);
  const width = upper - rounded > rounded - lower ? upper - rounded : rounded - lower;
  return { offset, errorBound: seconds(width) };
}

function seconds(nanoseconds: bigint): number {
  return Number(nanoseconds) / 1e9;
}
