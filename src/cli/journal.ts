/**
 * What a watch says on stderr: each thing when it begins and when it ends, not
 * at each poll. Pure, but for the clock that says how long it took.
 *
 * @module
 */

import type { Update } from "../mod.ts";
import {
  describeCorrection,
  describeDuplicates,
  describeFailure,
  formatDuration,
} from "./report.ts";

/** Turns updates into sentences. */
export class Journal {
  readonly #isSetting: boolean;
  readonly #now: () => number;
  readonly #said = new Set<string>();
  /** Why there was no fix at the last poll; empty if there was one. */
  #failure = "";
  /** When the last fix before that was. */
  #fixed: number | null = null;
  #isSlewing = false;
  /** Was the local clock disturbed before the last poll? */
  #isDisturbed = false;

  /**
   * @param isSetting Is the system clock corrected? Then it is also said that it has a fix at last.
   * @param now Milliseconds on any timeline.
   */
  constructor(isSetting: boolean, now: () => number = () => performance.now()) {
    this.#isSetting = isSetting;
    this.#now = now;
  }

  /** What goes wrong: worth saying whatever else is not. */
  errors({ fix, correction }: Update): string[] {
    if (correction?.action === "refused") return [describeCorrection(correction)];
    if (fix.synchronised) return [];
    // What a server says changes all the time, but not that it is no use.
    const failure = fix.servers.map(({ error, status }) => error ?? status).join();
    if (failure === this.#failure) return [];
    this.#failure = failure;
    return describeFailure(fix);
  }

  /** What else is new. */
  notes({ fix, news, correction, isContested }: Update): string[] {
    const notes = describeDuplicates(fix).filter((sentence) => this.#isNew(sentence));
    if (isContested && this.#isNew(CONTESTED)) notes.push(CONTESTED);
    // chronyd slews fast enough for it to look so, for many polls.
    const isDisturbed = news === "disturbed";
    if (isDisturbed && !this.#isDisturbed) {
      notes.push("the local clock was set, or the machine slept");
    }
    this.#isDisturbed = isDisturbed;
    if (fix.synchronised) notes.push(...this.#recovery());
    if (correction === null || correction.action === "refused") return notes;
    const { action, offset } = correction;
    const isSlewing = action === "slew" && Math.abs(offset) > fix.errorBound!;
    if (action === "step" || isSlewing && !this.#isSlewing) {
      notes.push(describeCorrection(correction));
    }
    this.#isSlewing = isSlewing;
    return notes;
  }

  #recovery(): string[] {
    const now = this.#now();
    const [isFirst, wasLost] = [this.#fixed === null, this.#failure !== ""];
    const lasted = isFirst ? 0 : (now - this.#fixed!) / 1000;
    this.#fixed = now;
    this.#failure = "";
    if (isFirst) return this.#isSetting || wasLost ? ["synchronised"] : [];
    return wasLost ? [`synchronised again, ${formatDuration(lasted)} after the last fix`] : [];
  }

  #isNew(sentence: string): boolean {
    if (this.#said.has(sentence)) return false;
    this.#said.add(sentence);
    return true;
  }
}

/** What is said of another program that steers the clock. */
export const CONTESTED =
  "warning: another program steers the system clock too, such as chronyd, ntpd or " +
  "systemd-timesyncd: stop it, or leave out --set";
