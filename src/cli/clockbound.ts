/**
 * Writes the shared memory of AWS ClockBound, protocol version 2, which its
 * clients map: github.com/aws/clock-bound, docs/PROTOCOL.md.
 *
 * @module
 */

import { LINUX_GAIN } from "../clock/clock_setter.ts";
import type { ClockOffset, SyncedClock } from "../clock/synced_clock.ts";
import type { Libc } from "../libc/libc.ts";
import { PlacedFile } from "../libc/placed_file.ts";
import {
  CLOCK_MONOTONIC_COARSE,
  EACCES,
  EAGAIN,
  EISDIR,
  ENOENT,
  ESPIPE,
} from "../libc/structures.ts";
import { timex } from "../libc/timex.ts";
import type { Update } from "../mod.ts";
import { numberedErrorText } from "../net/linux/sockets.ts";
import { SECOND } from "../ntp/timestamp.ts";
import { MAX_SLEW } from "../sync/correction.ts";
import { libcFor } from "./linux.ts";
import type { Feed } from "./panel.ts";

/** Between two updates. */
const INTERVAL_MS = 1000;

/**
 * How long an update can be believed, in nanoseconds, if none follows. Long enough for a tsync that
 * was killed to be started again; ClockBound's clients believe five seconds in any case.
 */
const VALIDITY = 10n * SECOND;

/** The most by which the coarse clock is late, in seconds: a tick of the slowest kernel (HZ = 100). */
const TICK_SECONDS = 0.01;

/** The clock that measures an update's age is slewed itself, by 0.5 % at most. */
const SLEW_MARGIN = 1.01;

/**
 * The most that is left of slews, in seconds: of one all, and of that before a second's worth, with
 * which the kernel goes on when told another.
 */
const MOST_LEFT = MAX_SLEW / LINUX_GAIN + MAX_SLEW;

/**
 * How long what the kernel was told can have an effect that is replaced, in nanoseconds. It is told
 * something else once a second, or a second late, and ends the second.
 */
const REPLACED = 4n * SECOND;

/** Of a time that is not known, for a reader that does not look at the status: 31 years. */
const UNKNOWN_BOUND = 10n ** 18n;

const MAGIC = new Uint8Array(new Uint32Array([0x414d5a4e, 0x43420200]).buffer);
const VERSION = 2;

/** Where the parts are, in bytes. */
const AT = { magic: 0, header: 8, payload: 16, end: 80 } as const;

/** Values of the clock's status. */
const STATUS = { unknown: 0, synchronised: 1, freeRunning: 2 } as const;

/** What there is to know about the system clock. */
export interface ErrorBound {
  /** When: nanoseconds of CLOCK_MONOTONIC_COARSE. */
  readonly asOf: bigint;
  /** Until when it can be believed. */
  readonly voidAfter: bigint;
  /** The most by which the system clock was wrong, in nanoseconds. */
  readonly bound: bigint;
  /** The most by which that grows, in parts per billion. */
  readonly drift: number;
  readonly status: typeof STATUS[keyof typeof STATUS];
}

/** Encodes what comes before the payload, but for the magic number: eight bytes. */
export function encodeHeader(generation: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(AT.payload - AT.header);
  new Uint32Array(bytes.buffer, 0, 1)[0] = AT.end;
  new Uint16Array(bytes.buffer, 4, 2).set([VERSION, generation]);
  return bytes;
}

/** Encodes the payload, in the processor's byte order. */
export function encodePayload(known: ErrorBound): Uint8Array<ArrayBuffer> {
  const { asOf, voidAfter, bound, drift, status } = known;
  const bytes = new Uint8Array(AT.end - AT.payload);
  const times = [asOf, voidAfter].flatMap((time) => [time / SECOND, time % SECOND]);
  // The disruption marker that follows, and the flag that it is supported, stay 0.
  new BigInt64Array(bytes.buffer, 0, 5).set([...times, bound]);
  new Uint32Array(bytes.buffer, 48, 1)[0] = drift;
  new Int32Array(bytes.buffer, 52, 1)[0] = status;
  return bytes;
}

/**
 * What the kernel may still add to a clock that it was told to slew. What an offset was before the
 * last poll may be far from what is known now, and the kernel goes on by it for a moment; to its
 * end, if tsync is killed.
 */
export class Slews {
  /** Between what the kernel may have been told to slew by, in seconds, and since when. */
  #told: readonly (readonly [asOf: bigint, least: number, most: number])[] = [];

  /** The clock may be slewed by an offset from now on. @returns What may be added, in seconds. */
  add(asOf: bigint, offset: number): readonly [least: number, most: number] {
    // The newest, however old: if this was suspended, so was what would have replaced it.
    const told = this.#told.filter(([then], i, all) =>
      asOf - then < REPLACED || i === all.length - 1
    );
    const offsets = [0, offset, ...told.flatMap(([, ...each]) => each)];
    const least = Math.max((1 + LINUX_GAIN) * Math.min(...offsets), -MOST_LEFT);
    const most = Math.min((1 + LINUX_GAIN) * Math.max(...offsets), MOST_LEFT);
    // By the time that it is told, the second's worth of what it was told before may have been added.
    const share = LINUX_GAIN / (1 + LINUX_GAIN);
    this.#told = [...told, [asOf, offset - share * most, offset - share * least]];
    return [least, most];
  }

  /** A step ends them. */
  clear(): void {
    this.#told = [];
  }
}

/**
 * The most by which the system clock is wrong.
 *
 * @param asOf A reading of the coarse clock from before the offset was taken.
 * @param rootDistance As in {@linkcode Update}.
 * @param slews The least and the most seconds that the kernel may still add to it.
 */
export function errorBoundOf(
  { offset, errorBound, frequency, frequencyBound }: ClockOffset,
  asOf: bigint,
  rootDistance: number,
  isHeld: boolean,
  slews: readonly number[] = [],
): ErrorBound {
  const drift = SLEW_MARGIN * (Math.abs(frequency) + frequencyBound);
  const distance = Math.max(...[0, ...slews].map((added) => Math.abs(offset - added)));
  const seconds = distance + errorBound + rootDistance + drift * TICK_SECONDS;
  return {
    asOf,
    voidAfter: asOf + VALIDITY,
    // With what doubles lose here, and readers in rounding.
    bound: BigInt(Math.ceil(seconds * 1e9 * (1 + 2 ** -50))) + 2n,
    drift: Math.ceil(drift * 1e9),
    status: isHeld ? STATUS.freeRunning : STATUS.synchronised,
  };
}

/** Keeps the shared memory up to date, once a second, until it is stopped. */
export class ClockBoundFeed implements Feed {
  readonly label = "clockbound";
  readonly #path: string;
  readonly #clock: Pick<SyncedClock, "systemOffset">;
  readonly #tell: (sentence: string, isError: boolean) => void;
  readonly #libc: Libc;
  readonly #file: PlacedFile;
  readonly #timer: ReturnType<typeof setInterval>;
  readonly #timespec = new BigInt64Array(2);
  #generation: number;
  /** The last poll that made a fix or, since then, did not; `null` before the first fix. */
  #update: Pick<Update, "state" | "rootDistance"> | null = null;
  /** Those of a clock that is set; `null` if it is not. */
  #slews: Slews | null = null;
  /** Why it could not be written last; empty if it could. */
  #obstacle = "";

  /**
   * @param path The file that is mapped. What a killed tsync left in it stays, as long as it can be
   * believed, until there is a fix.
   * @param tell Told, once each, of what keeps it from being written, and that it is over.
   * @throws {Error} with a sentence, if it cannot be written.
   */
  constructor(
    path: string,
    clock: Pick<SyncedClock, "systemOffset">,
    tell: (sentence: string, isError: boolean) => void,
    libc: Libc = libcFor("--clockbound"),
  ) {
    this.#path = path;
    this.#clock = clock;
    this.#tell = tell;
    this.#libc = libc;
    if (libc.ntp_adjtime(new BigInt64Array(timex.words)) < 0) {
      throw new Error(
        "cannot use --clockbound: the kernel may not be asked how fast it makes the system clock run " +
          "(adjtimex, which ProtectClock= in a systemd unit forbids)",
      );
    }
    const file = PlacedFile.open(libc, path);
    if (typeof file === "number") throw new Error(this.#describe(file));
    this.#file = file;
    try {
      this.#generation = this.#begin();
    } catch (error) {
      file.close();
      throw error;
    }
    this.#timer = setInterval(() => this.write(), INTERVAL_MS);
  }

  /** Where it is written, or why it is not. */
  get status(): string {
    return this.#obstacle || this.#path;
  }

  /** Takes in a poll. */
  update({ fix, state, rootDistance, correction }: Update): void {
    if (correction !== null) this.#slews ??= new Slews();
    if (correction?.action === "step") this.#slews!.clear();
    if (fix.synchronised || this.#update !== null) this.#update = { state, rootDistance };
    this.write();
  }

  /** Writes what is known now, once anything is. */
  write(): void {
    if (this.#update === null) return;
    const { state, rootDistance } = this.#update;
    // First: if the process is suspended here, the bound becomes older, not younger, than it is.
    const asOf = this.#coarseTime();
    const now = this.#clock.systemOffset();
    const slews = now === null ? undefined : this.#slews?.add(asOf, now.offset);
    const obstacle = this.#publish(
      now === null
        ? unknown(asOf)
        : errorBoundOf(now, asOf, rootDistance, state === "holdover", slews),
    );
    if (obstacle === this.#obstacle) return;
    this.#obstacle = obstacle;
    if (obstacle === "") this.#tell(`writing ${this.#path} again`, false);
    else this.#tell(obstacle, true);
  }

  /** The time is not known from now on. */
  stop(): void {
    clearInterval(this.#timer);
    try {
      this.#publish(unknown(this.#coarseTime()));
    } finally {
      this.#file.close();
    }
  }

  /** Makes the file what it should be. @returns Its generation. */
  #begin(): number {
    const bytes = new Uint8Array(AT.end + 1);
    const count = this.#file.read(bytes);
    if (count < 0) throw new Error(this.#describe(-count));
    const isOurs = MAGIC.every((byte, i) => byte === bytes[i]);
    if (!isOurs && (count > AT.end || bytes.some((byte) => byte !== 0))) {
      throw new Error(
        `cannot write ${this.#path} for --clockbound: there is something else in it than ` +
          "ClockBound's shared memory; name another file, or remove it",
      );
    }
    if (!isOurs) this.#probe(bytes);
    const number = this.#file.share();
    // Another user's may be written, but not shared; it must have been shared already.
    if (number !== 0 && !isOurs) throw new Error(this.#describe(number));
    const [generation] = new Uint16Array(bytes.buffer.slice(14, 16));
    if (isOurs && count >= AT.end && this.#isValid(bytes)) return generation!;
    this.#generation = isOurs ? generation! : 0;
    const obstacle = this.#publish(unknown(this.#coarseTime()), true);
    if (obstacle !== "") throw new Error(obstacle);
    return this.#generation;
  }

  /** A device takes what it is given, and does not have it. Its permissions are not to be changed. */
  #probe(bytes: Uint8Array<ArrayBuffer>): void {
    const number = this.#file.write(new Uint8Array(1), AT.end - 1);
    if (number !== 0) throw new Error(this.#describe(number));
    if (this.#file.read(bytes) !== AT.end) throw new Error(this.#describe(ESPIPE));
  }

  /** Is it complete, and can it be believed now? */
  #isValid(bytes: Uint8Array<ArrayBuffer>): boolean {
    const [generation] = new Uint16Array(bytes.buffer.slice(14, 16));
    if (generation! % 2 !== 0 || generation === 0) return false;
    if (encodeHeader(generation!).some((byte, i) => byte !== bytes[AT.header + i])) return false;
    const [seconds, nanoseconds, voidSeconds, voidNanoseconds] = new BigInt64Array(
      bytes.buffer.slice(AT.payload, AT.payload + 32),
    );
    const now = this.#coarseTime();
    // After a restart of the machine it may be of another time.
    return seconds! * SECOND + nanoseconds! <= now &&
      voidSeconds! * SECOND + voidNanoseconds! > now;
  }

  /**
   * Replaces the payload so that no reader takes one that is half another: the generation is odd
   * meanwhile, for ever if the process is killed.
   *
   * @returns Why it could not; empty if it could.
   */
  #publish(known: ErrorBound, isNew = false): string {
    const odd = this.#generation | 1;
    // 0 would mean that there is nothing yet.
    const even = odd === 0xffff ? 2 : odd + 1;
    const writes: [Uint8Array<ArrayBuffer>, number][] = [
      // First, so that a tsync that is started again knows what was left. Readers need the rest too.
      ...isNew ? [[MAGIC, AT.magic] as [Uint8Array<ArrayBuffer>, number]] : [],
      [encodeHeader(odd), AT.header],
      [encodePayload(known), AT.payload],
      [encodeHeader(even), AT.header],
    ];
    for (const [bytes, at] of writes) {
      const number = this.#file.write(bytes, at);
      if (number !== 0) return this.#describe(number);
    }
    this.#generation = even;
    return "";
  }

  #coarseTime(): bigint {
    this.#libc.clock_gettime(CLOCK_MONOTONIC_COARSE, this.#timespec);
    return this.#timespec[0]! * SECOND + this.#timespec[1]!;
  }

  #describe(number: number): string {
    const reasons: Readonly<Record<number, string>> = {
      [EACCES]: "permission denied",
      [EAGAIN]: "another tsync writes it, or is stopped while it does",
      [EISDIR]: "it is a folder",
      [ENOENT]: "there is no such folder",
      [ESPIPE]: "it is no ordinary file",
    };
    const why = reasons[number] ?? numberedErrorText(this.#libc, number);
    return `cannot write ${this.#path} for --clockbound: ${why}`;
  }
}

/** Nothing is known. */
function unknown(asOf: bigint): ErrorBound {
  return { asOf, voidAfter: asOf, bound: UNKNOWN_BOUND, drift: 0, status: STATUS.unknown };
}
