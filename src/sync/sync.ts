/**
 * A fix: the time, once, from one server or what several agree on.
 *
 * @module
 */

import { clientNetwork, timestampsFor } from "../net/system.ts";
import { type Clock, crossTimestamp, stepped, type Timers } from "../clock/clock.ts";
import { systemClock, systemTimers } from "../clock/system_clock.ts";
import {
  isListed,
  parseProxy,
  parseServerAddress,
  type ProxyAddress,
  type ServerAddress,
  type TransportName,
} from "../net/address.ts";
import type { Network, Timestamps } from "../net/network.ts";
import type { MessageKey } from "../ntp/mac.ts";
import { nanoseconds } from "../ntp/timestamp.ts";
import { measure, type Measurement } from "./burst.ts";
import type { KeptConnection } from "./conversation.ts";
import { sleep } from "./deadline.ts";
import type { Environment } from "./environment.ts";
import type { Failure } from "./failure.ts";
import { combine, type Fix, type Poll } from "./fix.ts";
import { PACING, TIMEOUT_SECONDS } from "./pacing.ts";
import type { Samples } from "./plan.ts";

/** How to take a fix. */
export interface SyncOptions {
  /**
   * Whom to ask: `host`, `host:port`, `[v6]:port` or a bare IPv6 address, each of them alone or
   * after `tcp://` (the default), `tls://` or `ntp://`. The port is 10085 by default, with `ntp://`
   * 123. Default: `localhost`.
   */
  servers?: readonly string[] | undefined;
  /**
   * Exchanges per server, at least 1. Default 16; over a path of more than 5 ms 32, and more while
   * congestion lasts, for half a second. Of a `Watch` 8; with `ntp://` 4, two seconds apart.
   */
  samples?: number | undefined;
  /** Seconds for a server to answer at all; what it has answered by then counts. Default 5. */
  timeout?: number | undefined;
  /** Use only addresses of one family. */
  family?: 4 | 6 | undefined;
  /**
   * Authorities, as PEM text, that may have signed the certificate of a `tls://` server, besides
   * those that Deno trusts.
   */
  ca?: string | undefined;
  /**
   * An HTTP proxy for `tls://` servers, `http://HOST:PORT` or `http://USER:PASSWORD@HOST:PORT`. It
   * also looks up their names. Default: none, whatever the environment says.
   */
  proxy?: string | undefined;
  /** Hosts, and domains with all that is in them, to reach without the proxy. Default: none. */
  noProxy?: readonly string[] | undefined;
  /**
   * A key that the servers have too, one of those that `parseKeys` reads: requests carry its MAC, and
   * replies without one do not count. Default: none.
   */
  key?: MessageKey | undefined;
  /**
   * Who timestamps replies. The kernel can on Linux, where libc may be loaded, but not over TLS.
   * Default `auto`: the kernel where it can and the clock is the machine's, else the program.
   */
  timestamps?: Timestamps | undefined;
  /** Ends it early. */
  signal?: AbortSignal | undefined;
  /** Told after each exchange how many of all are done. */
  onProgress?: ((done: number, all: number) => void) | undefined;
  /** The local clock, to which the offset is to be added. Default: the machine's. */
  clock?: Clock | undefined;
  /** Where the servers are. Default: the machine's network. */
  network?: Network | undefined;
  /** What runs things later. Default: the runtime's. */
  timers?: Timers | undefined;
  /** 64 bits that nobody can guess, different for each request. Default: random ones. */
  nonce?: (() => bigint) | undefined;
}

/** Polls that may be disturbed, by a step of the local clock, before there is no fix. */
const POLLS = 3;

/**
 * Asks all servers side by side and takes what a majority agrees on. The local clock is not set.
 *
 * @returns The offset, servers' time minus local clock, and its error bound, in seconds. Both are
 * `null` if no majority agrees or nobody answers: that is not an error.
 * @throws {SyntaxError} if a server's name or the proxy is not valid.
 * @throws {RangeError} if a number is out of range.
 * @throws The signal's reason, if it is aborted, and what `onProgress` throws.
 * @throws {Error} with a sentence, if the local clock cannot be read, or the kernel's timestamps
 * are required and not available.
 *
 * @example
 * ```ts
 * import { assert } from "@std/assert";
 * import { serve, sync } from "tsync";
 *
 * const server = await serve({ hosts: ["127.0.0.1"], port: 0 });
 * const fix = await sync({ servers: [`127.0.0.1:${server.addresses[0]!.port}`] });
 * assert(fix.synchronised);
 * // Both ends read the same clock: the true offset is 0.
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
  /** By server. */
  readonly #samples: readonly Samples[];
  readonly #timeout: number;
  readonly #slew: number;
  readonly #options: SyncOptions;
  /** By server; `null` if it is reached directly. */
  readonly #proxies: readonly (ProxyAddress | null)[];
  /** By server; `null` if connections are closed after each poll. */
  readonly #kept: readonly KeptConnection[] | null;
  /** Servers that want to be left alone: what they said, and until when, on the monotonic timeline. */
  readonly #silent = new Map<number, { readonly failure: Failure; readonly until: bigint }>();

  /**
   * @param keeps Are connections kept for the next poll? Default: no.
   * @param slew How fast, as a fraction, the local clock may be slewed on purpose. Default 0.
   * @throws What {@linkcode sync} throws before it asks.
   */
  constructor(options: SyncOptions, keeps = false, slew = 0) {
    this.servers = (options.servers ?? ["localhost"]).map(parseServerAddress);
    const { timeout = TIMEOUT_SECONDS, samples } = options;
    if (this.servers.length === 0) {
      throw new RangeError("cannot sync: expected at least one server");
    }
    if (samples !== undefined && !(Number.isInteger(samples) && samples >= 1)) {
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
    const proxy = options.proxy === undefined ? null : parseProxy(options.proxy);
    const isProxied = ({ transport, hostname }: ServerAddress) =>
      transport === "tls" && !isListed(hostname, options.noProxy ?? []);
    this.#proxies = this.servers.map((server) => isProxied(server) ? proxy : null);
    this.#samples = this.servers.map(({ transport }) => samplesOf(transport, samples, keeps));
    this.#timeout = timeout;
    this.#slew = slew;
    const clock = options.clock ?? systemClock();
    this.environment = {
      clock,
      network: options.network ?? clientNetwork(timestampsFor(options.timestamps, clock), clock),
      timers: options.timers ?? systemTimers,
      nonce: options.nonce ?? (() => crypto.getRandomValues(new BigUint64Array(1))[0]!),
    };
    this.signal = options.signal ?? new AbortController().signal;
    const none = () => ({ connection: null, address: null });
    this.#kept = keeps ? this.servers.map(none) : null;
  }

  /**
   * Asks all servers side by side.
   *
   * @throws The signal's reason, if it is aborted, and what `onProgress` throws.
   */
  async poll(): Promise<Poll> {
    const { servers, signal, environment: { clock, timers } } = this;
    const progress = this.#samples.map(({ near }) => ({ done: 0, all: near }));
    const spacings = servers.map(({ transport }) => PACING[transport].spacingSeconds);
    const spacing = Math.max(...spacings);
    for (let i = 0; i < POLLS; i++) {
      if (i > 0 && spacing > 0) await sleep(timers, spacing, signal);
      const outcomes = await this.#ask([...servers.keys()], progress);
      // Servers that had to wait for others are asked again: an old bound says little about now.
      // Those that must be asked slowly are not.
      const moment = clock.monotonic() - STALE_NS;
      const old = [...servers.keys()].filter((i) =>
        spacings[i] === 0 && isOlder(outcomes[i]!, moment)
      );
      const fresh = await this.#ask(old, progress);
      old.forEach((i, k) => outcomes[i] = fresh[k]!);
      signal.throwIfAborted();
      const end = crossTimestamp(clock);
      const disturbed = outcomes.some((outcome) =>
        outcome.status === "measured" && stepped(outcome.start, end, this.#slew)
      );
      if (!disturbed) return combine(servers, outcomes, end);
    }
    return combine(servers, servers.map(disturbedBy), crossTimestamp(clock));
  }

  /** Closes the connections that are kept. */
  close(): void {
    for (const kept of this.#kept ?? []) {
      kept.connection?.close();
      kept.connection = null;
    }
  }

  async #ask(
    which: readonly number[],
    progress: { done: number; all: number }[],
  ): Promise<(Measurement | Failure)[]> {
    const { servers, environment, environment: { clock } } = this;
    const { family, ca, key = null, onProgress } = this.#options;
    // What the caller's own callback throws is no server's fault: it ends the poll.
    const thrown = new AbortController();
    const signal = AbortSignal.any([this.signal, thrown.signal]);
    const outcomes = await Promise.all(which.map(async (i) => {
      const silent = this.#silent.get(i);
      if (silent !== undefined && clock.monotonic() < silent.until) return silent.failure;
      const proxy = this.#proxies[i]!;
      const outcome = await measure({
        server: servers[i]!,
        proxy,
        samples: this.#samples[i]!,
        timeout: this.#timeout,
        family,
        ca,
        key,
        signal,
        kept: this.#kept?.[i],
        environment: proxy === null ? environment : throughProxy(environment, proxy, family),
        onSample: (done, all) => {
          progress[i] = { done, all };
          const sum = progress.reduce((a, b) => ({ done: a.done + b.done, all: a.all + b.all }));
          try {
            onProgress?.(sum.done, sum.all);
          } catch (error) {
            thrown.abort(error);
          }
        },
      });
      const failure = outcome.status === "measured" ? outcome.failure : outcome;
      if (failure?.silence !== undefined && this.#kept !== null) {
        this.#silent.set(i, { failure, until: clock.monotonic() + nanoseconds(failure.silence) });
      }
      return outcome;
    }));
    thrown.signal.throwIfAborted();
    return outcomes;
  }
}

/** A world in which servers are reached through a proxy. */
function throughProxy(
  environment: Environment,
  proxy: ProxyAddress,
  family: 4 | 6 | undefined,
): Environment {
  const { network, clock, timers } = environment;
  return {
    ...environment,
    network: {
      ...network,
      // The proxy looks it up: it may be a name that is not known here.
      resolve: (hostname) => Promise.resolve([hostname]),
      async connect(address, signal) {
        const { connectThrough } = await import("../net/proxy.ts");
        return await connectThrough(proxy, network, clock, timers, family, address, signal);
      },
    },
  };
}

/** What can be said about a server when the local clock does not stand still. */
function disturbedBy({ name }: ServerAddress): Failure {
  return {
    status: "invalid",
    address: null,
    final: true,
    error: `${name} could not be measured: the local clock was set, or the machine suspended, ` +
      `during each of ${POLLS} attempts; stop what sets it, or try again`,
  };
}

/** Nanoseconds after which a measurement is not carried on but made again. */
const STALE_NS = 500_000_000n;

function isOlder(outcome: Measurement | Failure, moment: bigint): boolean {
  return outcome.status === "measured" && outcome.end < moment;
}

/** @param wanted By the caller. @param keeps Is time kept? Then one exchange follows another. */
function samplesOf(transport: TransportName, wanted: number | undefined, keeps: boolean): Samples {
  const { samples, farSamples, keepingSamples } = PACING[transport];
  const far = keeps || farSamples === null ? null : wanted ?? farSamples;
  return { near: wanted ?? (keeps ? keepingSamples : samples), far, mayGrow: wanted === undefined };
}
