/**
 * A fix: the time, once, from one server or what several agree on.
 *
 * @module
 */

import { type Clock, stepped, type Tie, tie, type Timers } from "../clock/clock.ts";
import { systemClock, systemTimers } from "../clock/system_clock.ts";
import { extrapolate, jitter, leastDelay } from "../estimate/envelope.ts";
import { delay, type Interval, offset as exchangeOffset } from "../estimate/exchange.ts";
import { select, type Selection } from "../estimate/selection.ts";
import { parseServerAddress, type ServerAddress, type TransportName } from "../net/address.ts";
import { kernelNetwork, type Network, systemNetwork } from "../net/transport.ts";
import { type Leap, referenceIdText } from "../ntp/packet.ts";
import { nanoseconds } from "../ntp/timestamp.ts";
import { type Environment, type Failure, measure, type Measurement } from "./association.ts";

/** How to take a fix. */
export interface SyncOptions {
  /** Whom to ask, as `parseServerAddress` reads it. Default: `localhost`. */
  servers?: readonly string[] | undefined;
  /** Exchanges per server, at least 1. Default 16; with `ntp://` 4, two seconds apart. */
  samples?: number | undefined;
  /** Seconds for a server to answer at all; what it has answered by then counts. Default 5. */
  timeout?: number | undefined;
  /** Use only addresses of one family. */
  family?: 4 | 6 | undefined;
  /**
   * Authorities, as PEM text, that may have signed the certificate of a `tls://` server, beside
   * those that Deno believes.
   */
  ca?: string | undefined;
  /**
   * On Linux: have the kernel say when replies came over TCP too, as it does over UDP; over TLS it
   * cannot. Default: no.
   */
  kernelTimestamps?: boolean | undefined;
  /** Ends it early. */
  signal?: AbortSignal | undefined;
  /** Told after each exchange how many of all are done. */
  onProgress?: ((done: number, all: number) => void) | undefined;
  /** The world outside. Default: the machine's. */
  clock?: Clock | undefined;
  network?: Network | undefined;
  timers?: Timers | undefined;
  nonce?: (() => bigint) | undefined;
}

/** What came of asking. */
export interface Fix {
  /** Did a majority of the servers that answered agree? If not, the figures are `null`. */
  readonly synchronised: boolean;
  /** What the local clock showed at the moment of the fix: nanoseconds since the Unix epoch. */
  readonly localTime: bigint;
  /** Seconds to add to the local clock to have the servers' time. */
  readonly offset: number | null;
  /** Seconds by which the offset can be wrong, at most, in either direction. */
  readonly errorBound: number | null;
  /** Seconds: the least round trip to a truechimer. */
  readonly delay: number | null;
  /** The leap second that is due. */
  readonly leap: Leap | null;
  /** One for each server asked, in order. */
  readonly servers: readonly ServerReport[];
}

/** What is known of one server. */
export interface ServerReport {
  /** As the user wrote it. */
  readonly name: string;
  /** Its IP address and port, if it is known. */
  readonly address: string | null;
  readonly transport: TransportName;
  readonly status: "truechimer" | "falseticker" | "unreachable" | "invalid";
  /** What was measured; `null` if the server is unreachable or invalid. */
  readonly figures: ServerFigures | null;
  /** A sentence that says why there are no figures. */
  readonly error: string | null;
}

/** What was measured of one server. */
export interface ServerFigures {
  /** Seconds to add to the local clock to have this server's time. */
  readonly offset: number;
  /** Seconds by which that can be wrong. How wrong the server itself can be is not in it. */
  readonly errorBound: number;
  /** Seconds: the least round trip. */
  readonly delay: number;
  /** Seconds: see `jitter` in `envelope.ts`. */
  readonly jitter: number;
  /** Each exchange for itself, in order: seconds. */
  readonly exchanges: readonly { readonly offset: number; readonly delay: number }[];
  readonly stratum: number;
  /** As text, see `referenceIdText`. */
  readonly referenceId: string;
  /** Seconds. */
  readonly rootDelay: number;
  /** Seconds. */
  readonly rootDispersion: number;
  readonly leap: Leap;
  /** Who took T4. */
  readonly timestamps: "user" | "kernel";
}

/** Exchanges per server. Public servers of NTP must not be burst at. */
const DEFAULT_SAMPLES: Readonly<Record<TransportName, number>> = { tcp: 16, tls: 16, ntp: 4 };

/** Times that the local clock may be stepped in the middle before there is no fix. */
const ATTEMPTS = 3;

/**
 * Asks all servers side by side and takes what a majority agrees on.
 *
 * @throws {SyntaxError} if a server's name is none.
 * @throws {RangeError} if a number is out of range.
 * @throws The signal's reason, if it is aborted.
 * @throws {Error} a sentence, if the local clock cannot be read, or the kernel's timestamps cannot
 * be had although they should.
 *
 * @example
 * ```ts ignore
 * const fix = await sync({ servers: ["time.example"] });
 * if (fix.synchronised) console.log(`${fix.offset} s ± ${fix.errorBound} s`);
 * ```
 */
export async function sync(options: SyncOptions = {}): Promise<Fix> {
  const servers = (options.servers ?? ["localhost"]).map(parseServerAddress);
  const { timeout = 5 } = options;
  const counts = servers.map(({ transport }) => options.samples ?? DEFAULT_SAMPLES[transport]);
  if (servers.length === 0) throw new RangeError("cannot sync: expected at least one server");
  if (!counts.every((samples) => Number.isInteger(samples) && samples >= 1)) {
    throw new RangeError(
      `cannot sync: samples must be a positive integer: current value is ${options.samples}`,
    );
  }
  const all = counts.reduce((a, b) => a + b);
  if (!(timeout > 0 && timeout < 1e6)) {
    throw new RangeError(
      `cannot sync: timeout must be a positive number of seconds: current value is ${timeout}`,
    );
  }
  const clock = options.clock ?? systemClock();
  const environment: Environment = {
    clock,
    network: options.network ??
      (options.kernelTimestamps ? kernelNetwork(clock) : systemNetwork),
    timers: options.timers ?? systemTimers,
    nonce: options.nonce ?? (() => crypto.getRandomValues(new BigUint64Array(1))[0]!),
  };
  const signal = options.signal ?? new AbortController().signal;
  const done = servers.map(() => 0);
  const ask = (which: readonly number[]) =>
    Promise.all(which.map((i) => {
      const onSample = (count: number) => {
        done[i] = count;
        options.onProgress?.(done.reduce((a, b) => a + b), all);
      };
      const { family, ca } = options;
      const how = { samples: counts[i]!, timeout, family, ca, signal, onSample };
      return measure(servers[i]!, how, environment);
    }));
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const outcomes = await ask([...servers.keys()]);
    // Who had to wait for others is asked again: an old bound says little about now.
    // Servers of NTP are not: that would take seconds, and be a burden to them.
    const now = clock.monotonic();
    const old = [...servers.keys()].filter((i) =>
      servers[i]!.transport !== "ntp" && isOlder(outcomes[i]!, now - STALE)
    );
    const fresh = await ask(old);
    old.forEach((i, k) => outcomes[i] = fresh[k]!);
    signal.throwIfAborted();
    const end = tie(clock);
    const disturbed = outcomes.some((outcome) =>
      outcome.status === "measured" && stepped(outcome.start, end)
    );
    if (!disturbed) return combine(servers, outcomes, end);
  }
  return combine(servers, servers.map(disturbedBy), tie(clock));
}

/** What there is to say of a server when the local clock does not stand still. */
function disturbedBy({ name }: ServerAddress): Failure {
  return {
    status: "invalid",
    address: null,
    final: true,
    error: `${name} could not be measured: the local clock was set, or the machine suspended, ` +
      `during each of ${ATTEMPTS} attempts; stop what sets it, or try again`,
  };
}

function isOlder(outcome: Measurement | Failure, moment: bigint): boolean {
  return outcome.status === "measured" && outcome.bounds.at < moment;
}

/** Nanoseconds after which a bound is not carried on but measured again. */
const STALE = 500_000_000n;

/** Has the servers vote, and states the result for the moment of `end`. */
function combine(
  servers: readonly ServerAddress[],
  outcomes: readonly (Measurement | Failure)[],
  end: Tie,
): Fix {
  const measured = outcomes.filter((outcome) => outcome.status === "measured");
  const offsets = measured.map(({ bounds }) =>
    systemOffset(extrapolate(bounds, end.monotonic), end)
  );
  const selection = vote(servers.length, measured, offsets);
  const reports = servers.map(({ name, transport }, i): ServerReport => {
    const outcome = outcomes[i]!;
    const { address } = outcome;
    if (outcome.status !== "measured") {
      return {
        name,
        address,
        transport,
        status: outcome.status,
        figures: null,
        error: outcome.error,
      };
    }
    const which = measured.indexOf(outcome);
    const status = selection?.truechimers[which] ? "truechimer" : "falseticker";
    const figures = figuresOf(outcome, offsets[which]!, end.realtime - end.monotonic);
    return { name, address, transport, status, figures, error: null };
  });
  const truechimers = reports.filter(({ status }) => status === "truechimer");
  const nearest = truechimers.map(({ figures }) => figures!).sort((a, b) => a.delay - b.delay)[0];
  return {
    synchronised: selection !== null,
    localTime: end.realtime,
    ...selection === null ? { offset: null, errorBound: null } : middle(selection.interval),
    delay: nearest?.delay ?? null,
    leap: nearest?.leap ?? null,
    servers: reports,
  };
}

/**
 * One server is taken at its word: the offset is the one to its clock. When
 * several are asked the question is what the true time is, and how far each
 * can be from it (its root distance) counts.
 */
function vote(
  asked: number,
  measured: readonly Measurement[],
  offsets: readonly Interval[],
): Selection | null {
  if (asked === 1) return select(offsets);
  return select(measured.map(({ packet }, i) => {
    const distance = nanoseconds(packet.rootDelay / 2 + packet.rootDispersion);
    return { lower: offsets[i]!.lower - distance, upper: offsets[i]!.upper + distance };
  }));
}

/** From the offset to the monotonic timeline to the one to the system clock. */
function systemOffset({ lower, upper }: Interval, { monotonic, realtime, error }: Tie): Interval {
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

/** An interval's middle and half its width, in seconds: wide enough for what rounding the middle loses. */
function middle({ lower, upper }: Interval): { offset: number; errorBound: number } {
  const offset = seconds((lower + upper) >> 1n);
  const rounded = nanoseconds(offset);
  const width = upper - rounded > rounded - lower ? upper - rounded : rounded - lower;
  return { offset, errorBound: seconds(width) };
}

function seconds(nanoseconds: bigint): number {
  return Number(nanoseconds) / 1e9;
}
