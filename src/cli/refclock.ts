/**
 * Feeds chronyd with samples of the kept clock, through a SOCK reference clock:
 * chrony.conf(5), refclock_sock.c. chronyd drops without a word what it cannot
 * use.
 *
 * @module
 */

import type { ClockOffset, SyncedClock } from "../clock/synced_clock.ts";
import { EACCES, EAGAIN, ECONNREFUSED, ENOENT } from "../libc/structures.ts";
import { WANDER } from "../estimate/offset_tracker.ts";
import type { Libc } from "../libc/libc.ts";
import type { Update } from "../mod.ts";
import { numberedErrorText } from "../net/linux/sockets.ts";
import { sendUnixDatagram } from "../net/linux/unix_datagram.ts";
import type { Leap } from "../ntp/packet.ts";
import { SECOND } from "../ntp/timestamp.ts";
import { leapToday } from "../sync/correction.ts";
import { PACING } from "../sync/pacing.ts";
import { libcFor } from "./linux.ts";
import type { Feed } from "./panel.ts";
import { formatBound } from "./report.ts";

/** Between two samples. Of a poll, by default 16 s, chronyd wants four at least. */
const INTERVAL_MS = 1000;

/** Tells a `struct sock_sample` from anything else. */
const MAGIC = 0x534f434b;

/**
 * Encodes a `struct sock_sample`: a whole microsecond of the system clock, the last one, since
 * chronyd believes nothing in the future, and how far that clock was from the kept one then.
 */
export function encodeSample(
  { localTime, offset, frequency }: Pick<ClockOffset, "localTime" | "offset" | "frequency">,
  leap: Leap,
): Uint8Array<ArrayBuffer> {
  const since = localTime % 1000n;
  const moment = localTime - since;
  const bytes = new Uint8Array(40);
  new BigInt64Array(bytes.buffer, 0, 2).set([moment / SECOND, moment % SECOND / 1000n]);
  new Float64Array(bytes.buffer, 16, 1)[0] = offset - frequency * Number(since) / 1e9;
  new Int32Array(bytes.buffer, 28, 1)[0] = leap === "insert" ? 1 : leap === "delete" ? 2 : 0;
  new Int32Array(bytes.buffer, 36, 1)[0] = MAGIC;
  return bytes;
}

/** Sends chronyd a sample each second, until it is stopped. */
export class RefclockFeed implements Feed {
  readonly label = "chronyd";
  readonly #socket: string;
  readonly #clock: Pick<SyncedClock, "systemOffset">;
  readonly #tell: (sentence: string, isError: boolean) => void;
  readonly #libc: Libc;
  readonly #timer: ReturnType<typeof setInterval>;
  #leap: Leap = "none";
  /** Seconds that a sample may be off, as chronyd is to assume; 0 before the first fix. */
  #limit = 0;
  #suggestion: string | null = null;
  /** Why no sample could be sent, empty if one was; `null` before the first. */
  #obstacle: string | null = null;

  /**
   * @param socket The path at which chronyd receives.
   * @param tell Told, once each, of what chrony.conf should say, of obstacles and of their end.
   * @throws {Error} with a sentence, if nothing can ever be sent.
   */
  constructor(
    socket: string,
    clock: Pick<SyncedClock, "systemOffset">,
    tell: (sentence: string, isError: boolean) => void,
  ) {
    this.#socket = socket;
    this.#clock = clock;
    this.#tell = tell;
    this.#libc = libcFor("--refclock");
    this.#timer = setInterval(() => this.send(), INTERVAL_MS);
  }

  /** What chrony.conf should say, as a sentence; `null` before the first fix. */
  get suggestion(): string | null {
    return this.#suggestion;
  }

  /** Is chronyd fed, in words? */
  get status(): string {
    if (this.#obstacle === null) return "no sample yet";
    return this.#obstacle === "" ? `fed through ${this.#socket}` : `not fed: ${this.#obstacle}`;
  }

  /** Takes in a poll. */
  update(update: Update): void {
    const { fix, clock } = update;
    if (fix.synchronised && clock !== null) {
      this.#leap = fix.leap ?? "none";
      if (clock.errorBound > this.#limit) this.#suggest(update, clock.errorBound);
    }
    this.send();
  }

  /** Sends a sample, if the kept clock is valid and as certain as chronyd assumes. */
  send(): void {
    const now = this.#clock.systemOffset();
    if (now === null || this.#limit === 0) return;
    const obstacle = now.errorBound > this.#limit
      ? `the kept clock can be off by more than the ${formatBound(this.#limit)} ` +
        "that delay in chrony.conf stands for"
      : this.#obstacleTo(encodeSample(now, leapToday(this.#leap, now.localTime)));
    if (obstacle === this.#obstacle) return;
    this.#obstacle = obstacle;
    if (obstacle === "") this.#tell(`feeding chronyd through ${this.#socket}`, false);
    else this.#tell(`cannot feed chronyd: ${obstacle}`, true);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  /**
   * Settles on a bound that chronyd is to assume of all samples, since none can travel with them. The
   * kept clock's grows until the next poll. That is due after a third of the time since the first, so
   * that it grows by two thirds of itself at most while the frequency is little known; later by
   * 30 ppm or less.
   */
  #suggest({ fix: { servers }, interval, rootDistance }: Update, errorBound: number): void {
    const longest = Math.max(interval, PACING.tcp.lastIntervalSeconds);
    this.#limit = 2 * errorBound + 2 * WANDER * longest;
    const believed = servers.filter(({ status }) => status === "truechimer")
      .map(({ figures }) => figures!);
    const stratum = Math.max(...believed.map(({ stratum }) => stratum));
    const delay = rounded(2 * (this.#limit + rootDistance));
    const hasGrown = this.#suggestion !== null;
    this.#suggestion = `chrony.conf should say: refclock SOCK ${this.#socket} refid TSYN poll 4 ` +
      `delay ${delay} precision 1e-5 stratum ${stratum}`;
    this.#tell(hasGrown ? `the bound has grown: ${this.#suggestion}` : this.#suggestion, false);
  }

  /** Sends a sample. @returns What kept it from being sent; empty if nothing did. */
  #obstacleTo(sample: Uint8Array<ArrayBuffer>): string {
    const number = sendUnixDatagram(this.#libc, this.#socket, sample);
    switch (number) {
      case 0:
        return "";
      case ENOENT:
        return `there is no socket ${this.#socket}; chronyd makes it when it starts, if chrony.conf says so`;
      case ECONNREFUSED:
        return `nobody receives at ${this.#socket}: is chronyd running?`;
      case EACCES:
        return `this user may not write to ${this.#socket}, which chronyd makes for root: run tsync ` +
          "as root, or have a group of its user's own the socket and write to it";
      case EAGAIN:
        return `chronyd does not read what it is sent to ${this.#socket}`;
      default:
        return `nothing can be sent to ${this.#socket}: ${numberedErrorText(this.#libc, number)}`;
    }
  }
}

/** A number with two significant digits, rounded up. */
function rounded(value: number): number {
  const scale = 10 ** (1 - Math.floor(Math.log10(value)));
  return Number((Math.ceil(value * scale) / scale).toPrecision(2));
}
