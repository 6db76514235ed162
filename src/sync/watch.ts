/**
 * Keeping time: one poll after another, and a clock that goes on between them.
 *
 * @module
 */

import { type ClockOffset, SyncedClock } from "../clock/synced_clock.ts";
import { type News, OffsetTracker } from "../estimate/offset_tracker.ts";
import { type Correction, type Corrector, leapToday, MAX_SLEW, type Target } from "./correction.ts";
import { sleep } from "./deadline.ts";
import type { Leap } from "../ntp/packet.ts";
import { type Fix, type Poll, withoutFix } from "./fix.ts";
import { PACING } from "./pacing.ts";
import { Poller, type SyncOptions } from "./sync.ts";

/** How to keep time. */
export interface WatchOptions extends SyncOptions {
  /**
   * Seconds between two polls. Default: from 1 to 32, as needed; always 64 if one of the servers is
   * an NTP server. With those it must be 16 or more.
   */
  interval?: number | undefined;
  /** Keeps the system clock to the kept one. Default: it is left alone. */
  corrector?: Corrector | undefined;
}

/** Is the clock kept? In holdover the last poll made no fix, and the clock goes on by itself. */
export type State = "synchronising" | "synchronised" | "holdover";

/** What came of a poll. */
export interface Update {
  /** The fix; its figures are `null` if it is not believed. */
  readonly fix: Fix;
  /** Is the clock kept after this poll? */
  readonly state: State;
  /**
   * What is new. Besides {@linkcode News}, where `step` means that the servers' clock was set, or
   * slewed by more than 15 ppm: `disturbed`, the local clock was set or the machine slept; `lost`,
   * there is no fix; `minority`, too few of the servers agree to be believed.
   */
  readonly news: News | "disturbed" | "lost" | "minority";
  /** How much faster the servers' clock runs than the local oscillator: a fraction, or not known. */
  readonly frequency: number | null;
  /** The most by which the frequency can be wrong, in either direction: a fraction. */
  readonly frequencyBound: number | null;
  /** How far the system clock is from the kept one; `null` if that is not valid. */
  readonly clock: ClockOffset | null;
  /** Seconds by which the servers can be wrong beyond the bounds: a single one's root distance. */
  readonly rootDistance: number;
  /** Seconds until the next poll. */
  readonly interval: number;
  /** What was done with the system clock; `null` if it is not corrected, or there is no fix. */
  readonly correction: Correction | null;
  /** Has another program steered the system clock since the last poll, though it is corrected here? */
  readonly isContested: boolean;
}

/** Seconds, up to twice as many, over which the frequency is taken to be constant. */
const WINDOW_SECONDS = 2048;

/**
 * A poll is due when the time since nothing was known has grown by this fraction: polls further
 * apart leave the frequency uncertain, closer ones add little.
 */
const GROWTH = 1 / 3;

/** An innovation, in standard deviations, that says that the frequency may have changed. */
const SURPRISE = 2.5;

/** The part of the interval that is left after a surprise. It doubles with each poll that is none. */
const HASTE = 1 / 4;

/** Seconds between two checks of the local clock. */
const CHECK_SECONDS = 1;

/**
 * Keeps a clock. It polls while it is iterated over; between polls the clock goes on.
 *
 * @example
 * ```ts
 * import { assert } from "@std/assert";
 * import { serve, Watch } from "tsync";
 *
 * const server = await serve({ hosts: ["127.0.0.1"], port: 0 });
 * const watch = new Watch({ servers: [`127.0.0.1:${server.addresses[0]!.port}`] });
 * for await (const { state } of watch) {
 *   assert(state === "synchronised");
 *   // At any moment, not only after a poll: the time, and the earliest and latest it can be.
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
  readonly #tracker: OffsetTracker;
  /** Seconds between two polls, at least, whatever happens. */
  readonly #leastInterval: number;
  /** Seconds between two polls at first, and in the end. */
  readonly #firstInterval: number;
  readonly #lastInterval: number;
  /** Since when anything is known, on the monotonic timeline. */
  #since = 0n;
  /** Seconds until the next poll, at most: few after a surprise. */
  #patience = Infinity;
  /** Polls without a fix since the last one. */
  #failures = 0;
  /** Where the last fix was from, if there is only one server. */
  #address: string | null = null;
  /** Was the local clock set, or did the machine sleep, since the last poll? */
  #disturbed = false;
  #isIterated = false;
  readonly #corrector: Corrector | null;
  /** When it was steered last, on the monotonic timeline; `null` if that must be done now. */
  #steered: bigint | null = null;
  #isContested = false;
  /** The leap second that is due, as the last fix said. */
  #leap: Leap = "none";
  /** As {@linkcode Update.rootDistance}. */
  #rootDistance = 0;
  /** Why the system clock cannot be steered any more. */
  #failure: unknown = null;
  #wake = () => {};
  #cancelCheck = () => {};

  /**
   * Servers are not asked before it is iterated over.
   *
   * @throws {SyntaxError} if a server's name is not valid.
   * @throws {RangeError} if a number is out of range.
   * @throws {Error} with a sentence, if the local clock cannot be read, or the kernel's timestamps
   * are required and not available.
   */
  constructor(options: WatchOptions = {}) {
    const { interval } = options;
    if (interval !== undefined && !(interval > 0 && interval < 1e6)) {
      throw new RangeError(
        `cannot watch: interval must be a positive number of seconds: current value is ${interval}`,
      );
    }
    this.#corrector = options.corrector ?? null;
    const slew = this.#corrector === null ? 0 : MAX_SLEW;
    this.#poller = new Poller(options, true, slew);
    this.clock = new SyncedClock(this.#poller.environment.clock, slew);
    const pacings = this.#poller.servers.map(({ transport }) => PACING[transport]);
    const least = Math.max(...pacings.map(({ leastIntervalSeconds }) => leastIntervalSeconds));
    const first = Math.max(...pacings.map(({ firstIntervalSeconds }) => firstIntervalSeconds));
    const last = Math.max(...pacings.map(({ lastIntervalSeconds }) => lastIntervalSeconds));
    if (interval !== undefined && interval < least) {
      throw new RangeError(
        `cannot watch: an NTP server must not be asked more often than once in ${least} s: ` +
          `current value of interval is ${interval}`,
      );
    }
    this.#leastInterval = least;
    this.#firstInterval = interval ?? first;
    this.#lastInterval = interval ?? last;
    this.#tracker = new OffsetTracker(interval === undefined ? WINDOW_SECONDS / last : undefined);
  }

  /**
   * Polls until the options' signal is aborted or the iteration is ended.
   *
   * @throws {TypeError} if it is being iterated over already.
   * @throws {Error} with a sentence, if the system clock is to be corrected and cannot be.
   */
  async *[Symbol.asyncIterator](): AsyncGenerator<Update, void, undefined> {
    if (this.#isIterated) {
      throw new TypeError("cannot watch: it is being iterated over already; make another Watch");
    }
    this.#isIterated = true;
    this.#failure = this.#steered = null;
    const { signal } = this.#poller;
    this.#tracker.clear();
    this.clock.rebase();
    this.#checkOften();
    try {
      for (;;) {
        if (this.#failure !== null) throw this.#failure;
        const poll = await this.#poller.poll();
        this.#check();
        const update = this.#take(poll);
        yield update;
        await this.#pause(update.interval);
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      this.#cancelCheck();
      this.#poller.close();
      this.clock.set(null);
      this.#isIterated = false;
      this.#release();
    }
  }

  /** Nobody keeps the system clock any more. It goes on at the frequency that it has. */
  #release(): void {
    try {
      this.#corrector?.steer(null);
    } catch (error) {
      if (this.#failure === null) throw error;
    }
  }

  /** Checks and steers once a second, however long the caller takes over an update. */
  #checkOften(): void {
    const { timers } = this.#poller.environment;
    this.#cancelCheck = timers.after(CHECK_SECONDS, () => this.#checkOften());
    this.#check();
    if (this.#failure !== null) return;
    try {
      this.#steer();
    } catch (error) {
      this.#failure = error;
      this.#wake();
    }
  }

  /** Steers the system clock towards the kept one, if it is to be corrected and that is due. */
  #steer(): void {
    if (this.#corrector === null) return;
    const now = this.#poller.environment.clock.monotonic();
    const due = this.#corrector.steeringSeconds - CHECK_SECONDS / 10; // The last may have been late.
    if (this.#steered !== null && Number(now - this.#steered) / 1e9 < due) return;
    const target = this.#target();
    if (this.#corrector.steer(target)) this.#isContested = true;
    this.#steered = target === null ? null : now;
  }

  /** What the system clock should be like; `null` if that is not known. */
  #target(): Target | null {
    const { clock } = this.#poller.environment;
    const { estimate } = this.#tracker;
    const offset = this.clock.systemOffset();
    if (estimate === null || offset === null) return null;
    return {
      clock: offset,
      frequency: estimate.frequency,
      deviation: this.#tracker.deviationAt(clock.monotonic()),
      rootDistance: this.#rootDistance,
      leap: leapToday(this.#leap, clock.realtime()),
    };
  }

  /** If the local clock was set or the machine slept, what was known is no longer true. */
  #check(): void {
    if (this.clock.check()) return;
    this.#tracker.clear();
    this.#poller.close(); // The other ends may have gone meanwhile.
    this.#disturbed = true;
    this.#steered = null;
    this.#failures = 0;
    this.#wake();
  }

  #take({ fix: polled, bounds: proved, rootDistance, exchanges }: Poll): Update {
    // A majority of those that answered is not enough: a liar may be the only one.
    const isCredible = proved === null || polled.isMajority;
    const bounds = isCredible ? proved : null;
    const fix = isCredible ? polled : withoutFix(polled);
    let news: Update["news"] = "lost";
    if (bounds !== null) {
      this.#settle(fix);
      this.#leap = fix.leap ?? "none";
      this.#rootDistance = rootDistance;
      news = this.#tracker.poll(bounds, exchanges);
      this.clock.set(this.#tracker.estimate);
      if (news === "first" || news === "step") this.#since = bounds.at;
      this.#failures = 0;
    } else this.#failures++;
    if (this.#disturbed) news = "disturbed";
    this.#disturbed = false;
    const correction = bounds === null ? null : this.#correct();
    const isContested = this.#isContested;
    this.#isContested = false;
    const { estimate } = this.#tracker;
    const kept = bounds === null ? "holdover" : "synchronised";
    return {
      fix,
      state: estimate === null ? "synchronising" : kept,
      news: isCredible ? news : "minority",
      frequency: estimate?.frequency ?? null,
      frequencyBound: estimate?.frequencyBound ?? null,
      clock: this.clock.systemOffset(),
      rootDistance: this.#rootDistance,
      interval: bounds === null ? this.#retryInterval() : this.#interval(bounds.at),
      correction,
      isContested,
    };
  }

  /** Corrects the system clock; that it was stepped is no surprise then. */
  #correct(): Correction | null {
    const target = this.#target();
    if (this.#corrector === null || target === null) return null;
    const correction = this.#corrector.follow(target);
    if (correction.action === "step") {
      this.clock.rebase();
      this.#steered = null;
    }
    this.#steer();
    return correction;
  }

  /** Another address of the only server may be another machine, with another clock. */
  #settle({ servers }: Fix): void {
    const [only, ...others] = servers;
    if (others.length > 0) return;
    if (this.#address !== null && this.#address !== only!.address) this.#tracker.clear();
    this.#address = only!.address;
  }

  /** Seconds until the next poll, after one without a fix. */
  #retryInterval(): number {
    return this.#clamp(2 ** Math.min(this.#failures - 1, 20));
  }

  /** Seconds until the next poll. @param at When the last one was. */
  #interval(at: bigint): number {
    const grown = this.#clamp(Number(at - this.#since) / 1e9 * GROWTH);
    const isSurprise = Math.abs(this.#tracker.innovation) > SURPRISE;
    this.#patience = isSurprise ? grown * HASTE : this.#patience * 2;
    return this.#clamp(Math.min(grown, this.#patience));
  }

  #clamp(seconds: number): number {
    return Math.min(Math.max(seconds, this.#firstInterval), this.#lastInterval);
  }

  /** Waits until the local clock is disturbed, but for the least interval at least. */
  async #pause(seconds: number): Promise<void> {
    const { signal, environment: { timers } } = this.#poller;
    await sleep(timers, Math.min(seconds, this.#leastInterval), signal);
    if (this.#disturbed || this.#failure !== null || seconds <= this.#leastInterval) return;
    const woken = new AbortController();
    this.#wake = () => woken.abort();
    try {
      await sleep(timers, seconds - this.#leastInterval, AbortSignal.any([signal, woken.signal]));
    } catch (error) {
      if (!this.#disturbed && this.#failure === null) throw error;
    } finally {
      this.#wake = () => {};
    }
  }
}
