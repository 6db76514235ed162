/**
 * A fix: the time, once, from one server or what several agree on.
 *
 * @module
 */

import { type Clock, crossTimestamp, stepped, type Timers } from "../clock/clock.ts";
import { systemClock, systemTimers } from "../clock/system_clock.ts";
import { parseServerAddress, type ServerAddress, type TransportName } from "../net/address.ts";
import type { Network, Timestamps } from "../net/network.ts";
import { clientNetwork, timestampsFor } from "../net/system.ts";
import {
  type Environment,
  type Failure,
  type KeptConnection,
  measure,
  type Measurement,
  SPACING,
} from "./burst.ts";
import { nanoseconds } from "../ntp/timestamp.ts";
import { combine, type Fix, type Poll } from "./fix.ts";

/** How to take a fix. */
export interface SyncOptions {
  /**
   * Whom to ask: `host`, `host:port`, `[v6]:port` or a bare IPv6 address, each of them alone or
   * after `tcp://` (the default), `tls://` or `ntp://`. Without a port it is 10085, with `ntp://`
   * 123. Default: `localhost`.
   */
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
   * Who says when replies came: the kernel can on Linux, where libc may be loaded, but not over TLS.
   * Default `auto`: the kernel where it can and the clock is the machine's, else the program.
   */
  timestamps?: Timestamps | undefined;
  /** Ends it early. */
  signal?: AbortSignal | undefined;
  /** Told after each exchange how many of all are done. */
  onProgress?: ((done: number, all: number) => void) | undefined;
  /** The local clock, which the offset is to be added to. Default: the machine's. */
  clock?: Clock | undefined;
  /** Where the servers are. Default: the machine's network. */
  network?: Network | undefined;
  /** What runs things later. Default: the runtime's. */
  timers?: Timers | undefined;
  /** 64 bits that nobody can guess, for each request others. Default: random ones. */
  nonce?: (() => bigint) | undefined;
}

/** Exchanges per server. Public servers of NTP must not be burst at. */
const DEFAULT_SAMPLES: Readonly<Record<TransportName, number>> = { tcp: 16, tls: 16, ntp: 4 };

/** Times that the local clock may be stepped in the middle before there is no fix. */
const ATTEMPTS = 3;

/**
 * Asks all servers side by side and takes what a majority agrees on. The local clock is not set.
 *
 * @returns The offset, servers' time minus local clock, and its error bound, in seconds. Both are
 * `null` if no majority agrees or nobody answers: that is no error.
 * @throws {SyntaxError} if a server's name is none.
 * @throws {RangeError} if a number is out of range.
 * @throws The signal's reason, if it is aborted, and what `onProgress` throws.
 * @throws {Error} a sentence, if the local clock cannot be read, or the kernel's timestamps cannot
 * be had although they should.
 *
 * @example
 * ```ts
 * import { assert } from "@std/assert";
 * import { serve, sync } from "@tsync/tsync";
 *
 * const server = await serve({ hosts: ["127.0.0.1"], port: 0 });
 * const fix = await sync({ servers: [`127.0.0.1:${server.addresses[0]!.port}`] });
 * assert(fix.synchronised);
 * // It is the same clock at both ends: the true offset is 0.
 * assert(Math.abs(fix.offset!) <= fix.errorBound!);
 * await server.stop();
 * ```
 */
export async function sync(options: SyncOptions = {}): Promise<Fix> {
  return (await new Poller(options).poll()).fix;
}

/** Asks the same servers again and again. */
export class Poller {
  readonly servers: readonly ServerAddress[];
  readonly environment: Environment;
  readonly signal: AbortSignal;
  readonly #counts: readonly number[];
  readonly #timeout: number;
  readonly #options: SyncOptions;
  readonly #keepers: readonly KeptConnection[] | null;
  /** Servers that want to be left alone, what they said, and until when: monotonic. */
  readonly #silent = new Map<number, { readonly failure: Failure; readonly until: bigint }>();

  /**
   * @param keeps Does it keep the connections, for the next time? Default: no.
   * @throws {SyntaxError} if a server's name is none.
   * @throws {RangeError} if a number is out of range.
   * @throws {Error} as {@linkcode sync} does.
   */
  constructor(options: SyncOptions, keeps = false) {
    this.servers = (options.servers ?? ["localhost"]).map(parseServerAddress);
    const { timeout = 5, samples } = options;
    const counts = this.servers.map(({ transport }) => samples ?? DEFAULT_SAMPLES[transport]);
    if (counts.length === 0) throw new RangeError("cannot sync: expected at least one server");
    if (!counts.every((samples) => Number.isInteger(samples) && samples >= 1)) {
      throw new RangeError(
        `cannot sync: samples must be a positive integer: current value is ${samples}`,
      );
    }
    if (!(timeout > 0 && timeout < 1e6)) {
      throw new RangeError(
        `cannot sync: timeout must be a positive number of seconds: current value is ${timeout}`,
      );
    }
    this.#options = options;
    this.#counts = counts;
    this.#timeout = timeout;
    const clock = options.clock ?? systemClock();
    this.environment = {
      clock,
      network: options.network ?? clientNetwork(timestampsFor(options.timestamps, clock), clock),
      timers: options.timers ?? systemTimers,
      nonce: options.nonce ?? (() => crypto.getRandomValues(new BigUint64Array(1))[0]!),
    };
    this.signal = options.signal ?? new AbortController().signal;
    this.#keepers = keeps ? counts.map(() => ({ connection: null, address: null })) : null;
  }

  /**
   * Asks all of them side by side.
   *
   * @throws The signal's reason, if it is aborted, and what `onProgress` throws.
   */
  async poll(): Promise<Poll> {
    const { servers, signal, environment: { clock } } = this;
    const done = servers.map(() => 0);
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      if (attempt > 0 && servers.some(({ transport }) => transport === "ntp")) {
        await wait(this.environment.timers, SPACING, signal);
      }
      const outcomes = await this.#ask([...servers.keys()], done);
      // Who had to wait for others is asked again: an old bound says little about now.
      // Servers of NTP are not: that would take seconds, and be a burden to them.
      const now = clock.monotonic();
      const old = [...servers.keys()].filter((i) =>
        servers[i]!.transport !== "ntp" && isOlder(outcomes[i]!, now - STALE)
      );
      const fresh = await this.#ask(old, done);
      old.forEach((i, k) => outcomes[i] = fresh[k]!);
      signal.throwIfAborted();
      const end = crossTimestamp(clock);
      const disturbed = outcomes.some((outcome) =>
        outcome.status === "measured" && stepped(outcome.start, end)
      );
      if (!disturbed) return combine(servers, outcomes, end);
    }
    return combine(servers, servers.map(disturbedBy), crossTimestamp(clock));
  }

  /** Closes the connections that are kept. */
  close(): void {
    for (const kept of this.#keepers ?? []) {
      kept.connection?.close();
      kept.connection = null;
    }
  }

  async #ask(which: readonly number[], done: number[]): Promise<(Measurement | Failure)[]> {
    const { family, ca, onProgress } = this.#options;
    const all = this.#counts.reduce((a, b) => a + b);
    const { clock } = this.environment;
    // What the caller's own callback throws is the caller's, and no server's fault.
    const thrown = new AbortController();
    const signal = AbortSignal.any([this.signal, thrown.signal]);
    const outcomes = await Promise.all(which.map(async (i) => {
      const silent = this.#silent.get(i);
      if (silent !== undefined && clock.monotonic() < silent.until) return silent.failure;
      const onSample = (count: number) => {
        done[i] = count;
        try {
          onProgress?.(done.reduce((a, b) => a + b), all);
        } catch (error) {
          thrown.abort(error);
        }
      };
      const how = {
        samples: this.#counts[i]!,
        timeout: this.#timeout,
        family,
        ca,
        signal,
        kept: this.#keepers?.[i],
        onSample,
      };
      const outcome = await measure(this.servers[i]!, how, this.environment);
      const failure = outcome.status === "measured" ? outcome.failure : outcome;
      if (failure?.silence !== undefined && this.#keepers !== null) {
        this.#silent.set(i, { failure, until: clock.monotonic() + nanoseconds(failure.silence) });
      }
      return outcome;
    }));
    thrown.signal.throwIfAborted();
    return outcomes;
  }
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

/** Sleeps. @throws The signal's reason, if it is aborted. */
export async function wait(timers: Timers, seconds: number, signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const done = () => resolve();
  const cancel = timers.after(seconds, done);
  signal.addEventListener("abort", done);
  if (signal.aborted) resolve();
  await promise;
  cancel();
  signal.removeEventListener("abort", done);
  signal.throwIfAborted();
}

function isOlder(outcome: Measurement | Failure, moment: bigint): boolean {
  return outcome.status === "measured" && outcome.bounds.at < moment;
}

/** Nanoseconds after which a bound is not carried on but measured again. */
const STALE = 500_000_000n;
