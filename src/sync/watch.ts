/**
 * Keeping time: polls as long as it is let, and a clock that goes on between
 * them.
 *
 * @module
 */

import { SyncedClock } from "../clock/synced_clock.ts";
import { type News, OffsetTracker } from "../estimate/offset_tracker.ts";
import type { Bounds } from "../estimate/envelope.ts";
import type { Correction, Corrector } from "./correction.ts";
import { type Fix, withoutFix } from "./fix.ts";
import { Poller, type SyncOptions, wait } from "./sync.ts";

/** How to keep time. */
export interface WatchOptions extends SyncOptions {
  /**
   * Seconds between two polls. Default: by itself, from 1 to 64; 64 if there is a server of NTP
   * among them, which must not be asked more often.
   */
  interval?: number | undefined;
  /** Corrects the system clock after each poll. Default: it is left alone. */
  corrector?: Corrector | undefined;
}

/** Is it kept? In holdover too few servers answered the last time, and the clock goes on alone. */
export type State = "synchronising" | "synchronised" | "holdover";

/** What a poll has brought. */
export interface Update {
  /** The poll itself; without figures if it is not believed. */
  readonly fix: Fix;
  /** Is the clock kept, after this poll? */
  readonly state: State;
  /**
   * What is new: the poll agrees with what was known; or the frequency is not what it was; or the
   * servers' clock was set, or slewed by more than 15 ppm; or the local clock was set, or the
   * machine slept; or there is no fix; or too few of the servers agree to be believed.
   */
  readonly news: News | "disturbed" | "lost" | "minority";
  /**
   * The servers' clock against the local oscillator, as a fraction; above zero if theirs is the
   * faster; `null` if it is not known.
   */
  readonly frequency: number | null;
  /** The frequency can be wrong by this, at most, in either direction: a fraction. */
  readonly frequencyBound: number | null;
  /** Seconds until the next poll. */
  readonly interval: number;
  /** What was done with the system clock; `null` if nothing was to be. */
  readonly correction: Correction | null;
}

/** Seconds between two polls. */
const LEAST = 1;
const MOST = 64;

/** The least with a server of NTP (RFC 5905, section 7.2: MINPOLL). */
const LEAST_NTP = 16;

/**
 * A poll is due when the time since the frequency was last known to change has grown by this
 * fraction: polls further apart than that leave it uncertain, nearer ones add little.
 */
const GROWTH = 1 / 8;

/** Seconds between two looks at the local clock. */
const LOOK = 1;

/**
 * Keeps a clock. It polls while it is iterated over, and in between the clock goes on.
 *
 * @example
 * ```ts
 * import { assert } from "@std/assert";
 * import { serve, Watch } from "@tsync/tsync";
 *
 * const server = await serve({ hosts: ["127.0.0.1"], port: 0 });
 * const watch = new Watch({ servers: [`127.0.0.1:${server.addresses[0]!.port}`] });
 * for await (const { state } of watch) {
 *   assert(state === "synchronised");
 *   // At any moment, not only after a poll: the time and the earliest and latest that it can be.
 *   const now = watch.clock.now();
 *   assert(now !== null && now.earliest <= now.time && now.time <= now.latest);
 *   break; // It ends with this, or with the options' signal.
 * }
 * await server.stop();
 * ```
 */
export class Watch {
  /** The clock that is kept. */
  readonly clock: SyncedClock;
  readonly #poller: Poller;
  readonly #tracker = new OffsetTracker();
  readonly #least: number;
  readonly #most: number;
  /** From when on the frequency is taken for constant, on the monotonic timeline. */
  #since = 0n;
  /** Polls without a fix since the last one. */
  #failures = 0;
  /** The only server's address at the last fix. */
  #address: string | null = null;
  /** Was the clock set, or did the machine sleep, since the last poll? */
  #disturbed = false;
  #isIterated = false;
  /** Seconds that pass between two polls whatever happens. */
  readonly #courtesy: number;
  readonly #corrector: Corrector | null;
  #wake = () => {};
  #cancelLook = () => {};

  /**
   * Nobody is asked before it is iterated over.
   *
   * @throws {RangeError | SyntaxError} if the options make no sense.
   * @throws {Error} a sentence, if the local clock cannot be read, or the kernel's timestamps cannot
   * be had although they should.
   */
  constructor(options: WatchOptions = {}) {
    const { interval } = options;
    if (interval !== undefined && !(interval > 0 && interval < 1e6)) {
      throw new RangeError(
        `cannot watch: interval must be a positive number of seconds: current value is ${interval}`,
      );
    }
    this.#poller = new Poller(options, true);
    this.#corrector = options.corrector ?? null;
    this.clock = new SyncedClock(this.#poller.environment.clock);
    const isNtp = this.#poller.servers.some(({ transport }) => transport === "ntp");
    if (isNtp && interval !== undefined && interval < LEAST_NTP) {
      throw new RangeError(
        `cannot watch: a server of NTP must not be asked more often than once in ${LEAST_NTP} s: ` +
          `current value of interval is ${interval}`,
      );
    }
    this.#courtesy = isNtp ? LEAST_NTP : 0;
    this.#least = interval ?? (isNtp ? MOST : LEAST);
    this.#most = interval ?? MOST;
  }

  /**
   * Polls, until the options' signal is aborted or nobody wants to hear of it.
   *
   * @throws {TypeError} if it is being iterated over already.
   * @throws {Error} a sentence, if the system clock is to be corrected and cannot be.
   */
  async *[Symbol.asyncIterator](): AsyncGenerator<Update, void, undefined> {
    if (this.#isIterated) {
      throw new TypeError("cannot watch: it is being iterated over already; make another Watch");
    }
    this.#isIterated = true;
    const { signal } = this.#poller;
    this.#tracker.clear();
    this.clock.rebase();
    this.#look();
    try {
      for (;;) {
        const { fix, bounds } = await this.#poller.poll();
        this.#check();
        const update = this.#take(fix, bounds);
        yield update;
        await this.#pause(update.interval);
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      this.#cancelLook();
      this.#poller.close();
      this.clock.set(null);
      this.#isIterated = false;
    }
  }

  /** Once a second, whatever whoever listens to the polls does meanwhile. */
  #look(): void {
    this.#check();
    this.#cancelLook = this.#poller.environment.timers.after(LOOK, () => this.#look());
  }

  /** Was the local clock set, or did the machine sleep? What was known is not true any more then. */
  #check(): void {
    if (this.clock.check()) return;
    this.#tracker.clear();
    this.#poller.close(); // What it is connected with may have gone meanwhile.
    this.#disturbed = true;
    this.#failures = 0;
    this.#wake();
  }

  #take(polled: Fix, proved: Bounds | null): Update {
    // Most of those that happened to answer are not enough: a liar may be left alone.
    const isCredible = proved === null || polled.isMajority;
    const bounds = isCredible ? proved : null;
    const fix = isCredible ? polled : withoutFix(polled);
    let news: Update["news"] = "lost";
    if (bounds !== null) {
      this.#settle(fix);
      news = this.#tracker.poll(bounds);
      this.clock.set(this.#tracker.estimate);
      if (news !== "agrees") this.#since = bounds.at;
      this.#failures = 0;
    } else this.#failures++;
    if (this.#disturbed) news = "disturbed";
    this.#disturbed = false;
    const correction = bounds === null ? null : this.#correct(fix);
    const { estimate } = this.#tracker;
    const state = estimate === null
      ? "synchronising"
      : bounds === null
      ? "holdover"
      : "synchronised";
    return {
      fix,
      state,
      news: isCredible ? news : "minority",
      frequency: estimate?.frequency ?? null,
      frequencyBound: estimate?.frequencyBound ?? null,
      interval: this.#interval(bounds?.at ?? null),
      correction,
    };
  }

  /** Somebody sets the system clock, and it is not a surprise. */
  #correct(fix: Fix): Correction | null {
    const correction = this.#corrector?.correct(fix) ?? null;
    if (correction?.action === "step") this.clock.rebase();
    return correction;
  }

  /** Another address of the only server may be another machine, with another clock. */
  #settle({ servers }: Fix): void {
    const [only, ...others] = servers;
    if (others.length > 0) return;
    if (this.#address !== null && this.#address !== only!.address) this.#tracker.clear();
    this.#address = only!.address;
  }

  #interval(at: bigint | null): number {
    const wanted = at === null
      ? LEAST * 2 ** Math.min(Math.max(this.#failures - 1, 0), 20)
      : Number(at - this.#since) / 1e9 * GROWTH;
    return Math.min(Math.max(wanted, this.#least), this.#most);
  }

  /** Waits, unless something happens to the local clock; never less than {@linkcode Watch.#courtesy}. */
  async #pause(seconds: number): Promise<void> {
    const { signal, environment: { timers } } = this.#poller;
    await wait(timers, Math.min(seconds, this.#courtesy), signal);
    if (this.#disturbed || seconds <= this.#courtesy) return;
    const woken = new AbortController();
    this.#wake = () => woken.abort();
    try {
      await wait(timers, seconds - this.#courtesy, AbortSignal.any([signal, woken.signal]));
    } catch (error) {
      if (!this.#disturbed) throw error;
    } finally {
      this.#wake = () => {};
    }
  }
}
