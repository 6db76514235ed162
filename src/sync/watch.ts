/**
 * Keeping time: polls as long as it is let, and a clock that goes on between
 * them.
 *
 * @module
 */

import { SyncedClock } from "../clock/synced_clock.ts";
import { Discipline, type News } from "../estimate/discipline.ts";
import { nanoseconds } from "../ntp/timestamp.ts";
import type { Fix } from "./fix.ts";
import { Poller, type SyncOptions } from "./sync.ts";

/** How to keep time. */
export interface WatchOptions extends SyncOptions {
  /**
   * Seconds between two polls. Default: by itself, from 1 to 64; 64 if there is a server of NTP
   * among them, which must not be asked more often.
   */
  interval?: number | undefined;
}

/** Is it kept? In holdover no server has answered the last time, and the clock goes on alone. */
export type State = "synchronising" | "synchronised" | "holdover";

/** What a poll has brought. */
export interface Update {
  /** The poll itself. */
  readonly fix: Fix;
  readonly state: State;
  /**
   * What is new: the poll agrees with what was known; or the frequency is not what it was; or the
   * servers' clock was stepped; or the local clock was set, or the machine slept; or there is no fix.
   */
  readonly news: News | "disturbed" | "lost";
  /** The servers' clock against the local oscillator, as a fraction; `null` if it is not known. */
  readonly frequency: number | null;
  /** It is within this of that. */
  readonly frequencyBound: number | null;
  /** Seconds until the next poll. */
  readonly interval: number;
}

/** Seconds between two polls. */
const LEAST = 1;
const MOST = 64;

/**
 * A poll is due when the time since the frequency was last known to change has grown by this
 * fraction: polls further apart than that leave it uncertain, nearer ones add little.
 */
const GROWTH = 1 / 8;

/** Seconds between two looks at the local clock. */
const LOOK = 1;

/** Keeps a clock. */
export class Watch {
  /** The clock that is kept. */
  readonly clock: SyncedClock;
  readonly #poller: Poller;
  readonly #discipline = new Discipline();
  readonly #least: number;
  readonly #most: number;
  /** From when on the frequency is taken for constant, on the monotonic timeline. */
  #since = 0n;
  /** Polls without a fix since the last one. */
  #failures = 0;

  /**
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
    this.clock = new SyncedClock(this.#poller.environment.clock);
    const isNtp = this.#poller.servers.some(({ transport }) => transport === "ntp");
    this.#least = interval ?? (isNtp ? MOST : LEAST);
    this.#most = interval ?? MOST;
  }

  /** Polls, until the options' signal is aborted or nobody wants to hear of it. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Update, void, undefined> {
    const { signal } = this.#poller;
    try {
      for (;;) {
        const { fix, bounds } = await this.#poller.poll();
        const update = this.#take(fix, bounds);
        yield update;
        await this.#pause(update.interval);
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      this.#poller.close();
      this.clock.set(null);
    }
  }

  #take(fix: Fix, bounds: Parameters<Discipline["poll"]>[0] | null): Update {
    const disturbed = !this.clock.check();
    if (disturbed) this.#discipline.clear();
    let news: Update["news"] = "lost";
    if (bounds !== null) {
      news = this.#discipline.poll(bounds);
      this.clock.set(this.#discipline.estimate);
      if (news !== "agrees") this.#since = bounds.at;
      if (disturbed || this.#disturbed) news = "disturbed";
      this.#disturbed = false;
      this.#failures = 0;
    } else this.#failures++;
    const { estimate } = this.#discipline;
    const state = estimate === null
      ? "synchronising"
      : bounds === null
      ? "holdover"
      : "synchronised";
    return {
      fix,
      state,
      news,
      frequency: estimate?.frequency ?? null,
      frequencyBound: estimate?.frequencyBound ?? null,
      interval: this.#interval(bounds?.at ?? null),
    };
  }

  /** Was the clock set, or did the machine sleep, since the last poll? */
  #disturbed = false;

  #interval(at: bigint | null): number {
    const wanted = at === null
      ? LEAST * 2 ** Math.min(this.#failures - 1, 20)
      : Number(at - this.#since) / 1e9 * GROWTH;
    return Math.min(Math.max(wanted, this.#least), this.#most);
  }

  /** Waits, unless something happens to the local clock. */
  async #pause(seconds: number): Promise<void> {
    const { signal, environment: { clock, timers } } = this.#poller;
    const due = clock.monotonic() + nanoseconds(seconds);
    for (;;) {
      const left = Number(due - clock.monotonic()) / 1e9;
      if (left <= 0) return;
      await new Promise<void>((resolve) => {
        const done = () => {
          cancel();
          signal.removeEventListener("abort", done);
          resolve();
        };
        const cancel = timers.after(Math.min(left, LOOK), done);
        signal.addEventListener("abort", done);
      });
      signal.throwIfAborted();
      if (this.clock.check()) continue;
      this.#discipline.clear();
      this.#disturbed = true;
      return;
    }
  }
}
