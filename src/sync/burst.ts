/**
 * One server: ask it, and bring home what its exchanges prove.
 *
 * @module
 */

import {
  type Conversation,
  DatagramConversation,
  NoConnection,
  StreamConversation,
  type Target,
} from "./conversation.ts";
import { type CrossTimestamp, crossTimestamp } from "../clock/clock.ts";
import { type Bounds, intersect } from "../estimate/envelope.ts";
import type { Exchange } from "../estimate/exchange.ts";
import { ChannelError } from "../net/channel.ts";
import { looksLikeTls } from "../net/deno/tls.ts";
import type { Stamper } from "../net/network.ts";
import type { Packet } from "../ntp/packet.ts";
import { fromTimestamp, timestampDifference, toNanoseconds } from "../ntp/timestamp.ts";
import { judgeReply } from "../ntp/validation.ts";
import { Deadline, sleep } from "./deadline.ts";
import { type Failure, failureOf, RejectedReply } from "./failure.ts";
import { PACING, type Pacing } from "./pacing.ts";
import { FAR_SECONDS } from "./pipeline.ts";
import { nextStep, type Samples, type Step } from "./plan.ts";

/** Whom to measure, and how. */
export interface MeasureOptions extends Omit<Target, "deadline" | "maySendAhead"> {
  readonly samples: Samples;
  /** Seconds for all of it, from the look-up of the name on. Exchanges made by then count. */
  readonly timeout: number;
  /** Ends it; the promise is rejected with its reason. */
  readonly signal: AbortSignal;
  /** Told after each exchange how many of this burst count, and how many will, as far as is known. */
  readonly onSample: (done: number, all: number) => void;
}

/** What a server's exchanges prove. */
export interface Measurement {
  readonly status: "measured";
  readonly address: string;
  /** T1 and T4 are on the clock's monotonic timeline. */
  readonly exchanges: readonly Exchange[];
  /** The offset: the server's time less the clock's monotonic timeline. */
  readonly bounds: Bounds;
  /** The last reply. */
  readonly packet: Packet;
  /** The client's clock before the first exchange. */
  readonly start: CrossTimestamp;
  /** When it was over, on the clock's monotonic timeline. */
  readonly end: bigint;
  /** Who took T4: the kernel, if it did each time. */
  readonly stamps: Stamper;
  /** Why there are fewer exchanges than were asked for; `null` if there are as many. */
  readonly failure: Failure | null;
}

/** Bursts that may contradict themselves before a server is given up. */
const BURSTS = 3;

/**
 * Measures one server.
 *
 * A conversation that breaks is begun again, as often as {@linkcode PACING} and the timeout allow,
 * and what it had proved is kept. One exchange makes a measurement.
 *
 * @throws The signal's reason. Everything else that can go wrong is a {@linkcode Failure}.
 */
export async function measure(options: MeasureOptions): Promise<Measurement | Failure> {
  const { server: { name, transport }, timeout, signal, environment: { clock, timers } } = options;
  const { spacingSeconds } = PACING[transport];
  const deadline = new Deadline(clock, timers, timeout, signal);
  let address: string | null = null;
  try {
    for (let i = 0; i < BURSTS; i++) {
      if (i > 0 && spacingSeconds > 0) await deadline.pause(spacingSeconds);
      const maySendAhead = options.samples.far !== null;
      const burst = new Burst({ ...options, deadline, maySendAhead });
      const outcome = await burst.run();
      if (outcome !== null) return outcome;
      address = burst.conversation.address;
      if (deadline.signal.aborted) break;
    }
  } finally {
    deadline.end();
  }
  const error = `${name} contradicts itself: a clock was stepped whenever it was measured`;
  return { status: "invalid", address, final: true, error };
}

/** Some exchanges with one server. */
class Burst {
  readonly conversation: Conversation;
  readonly #options: MeasureOptions & Target;
  readonly #pacing: Pacing;
  readonly #start: CrossTimestamp;
  readonly #exchanges: Exchange[] = [];
  /** Those of them that count beside those that are wanted. */
  #extra = 0;
  /** Exchanges of which the kernel took T4. */
  #stamped = 0;
  /** The address that the exchanges were with. */
  #measured: string | null = null;
  #packet: Packet | undefined;

  constructor(options: MeasureOptions & Target) {
    const { transport } = options.server;
    this.#options = options;
    this.#pacing = PACING[transport];
    const Way = transport === "ntp" ? DatagramConversation : StreamConversation;
    this.conversation = new Way(options);
    this.#start = crossTimestamp(options.environment.clock);
  }

  /** @returns `null` if the exchanges contradict each other. */
  async run(): Promise<Measurement | Failure | null> {
    const failure = await this.#converseOrRetry();
    const { kept, environment: { clock } } = this.#options;
    if (failure !== null && (this.#exchanges.length === 0 || failure.final)) {
      // The next burst looks the name up again: the machine may have gone for good.
      if (kept !== undefined) kept.address = null;
      return failure;
    }
    const precision = clock.precision + 2 ** this.#packet!.precision;
    const bounds = intersect(this.#exchanges, precision);
    if (bounds === null) return null;
    return {
      status: "measured",
      address: this.#measured!,
      exchanges: this.#exchanges,
      bounds,
      packet: this.#packet!,
      start: this.#start,
      end: clock.monotonic(),
      stamps: this.#stamped === this.#exchanges.length ? "kernel" : "user",
      failure,
    };
  }

  /** Makes the exchanges, in several attempts if need be. @returns Why some are missing. */
  async #converseOrRetry(): Promise<Failure | null> {
    const { server: { name }, timeout, signal, deadline } = this.#options;
    for (let attempt = 0;; attempt++) {
      try {
        await this.#converse();
        return null;
      } catch (error) {
        signal.throwIfAborted();
        const late = deadline.signal.aborted ? timeout : null;
        const failure = failureOf(error, name, this.conversation, late);
        const pause = this.#pacing.retrySeconds[attempt];
        if (pause === undefined || !this.#mayRecover(error)) return failure;
        await deadline.pause(pause);
        if (deadline.signal.aborted) return failure;
      }
    }
  }

  async #converse(): Promise<void> {
    const { spacingSeconds } = this.#pacing;
    let { warmUps } = this.#pacing;
    const { onSample, deadline, environment: { timers } } = this.#options;
    const { conversation } = this;
    if (this.#nextStep().wanted === 0) return;
    await conversation.begin();
    let isGood = false;
    try {
      for (;;) {
        const step = this.#nextStep();
        if (step.wanted === 0) break;
        const { exchange, by } = await this.#exchange(step);
        if (warmUps-- > 0 && !conversation.isFar) {
          if (!this.#counts(exchange)) continue;
          this.#extra++;
        }
        this.#exchanges.push(exchange);
        if (by === "kernel") this.#stamped++;
        const { wanted } = this.#nextStep();
        onSample(this.#exchanges.length, this.#exchanges.length + wanted);
        if (spacingSeconds === 0) continue;
        deadline.renew(spacingSeconds);
        if (wanted > 0) await sleep(timers, spacingSeconds, deadline.signal);
      }
      isGood = true;
    } finally {
      conversation.end(isGood);
    }
  }

  #nextStep(): Step {
    const wanted = this.#exchanges.slice(this.#extra);
    return nextStep(this.#options.samples, this.conversation, wanted);
  }

  /** Does one to warm up count beside those that are wanted? On a slow path it is as good as they. */
  #counts({ t1, t4 }: Exchange): boolean {
    const { mayGrow, far } = this.#options.samples;
    return mayGrow && far === null && Number(t4 - t1) > FAR_SECONDS * 1e9;
  }

  /** @throws {RejectedReply} if the reply is not to be believed. */
  async #exchange(step: Step): Promise<{ exchange: Exchange; by: Stamper }> {
    const { nonce, departed, arrived, by } = await this.conversation.exchange(step);
    const { address, reply } = this.conversation;
    // All are with one address: another may be another machine, with another clock.
    if (address !== this.#measured) this.#exchanges.length = this.#extra = this.#stamped = 0;
    this.#measured = address;
    const { packet, rejection } = judgeReply(reply, nonce, this.#options.key);
    if (rejection !== null) throw new RejectedReply(rejection, packet);
    this.#packet = packet;
    const t2 = fromTimestamp(packet.receive, this.#options.environment.clock.realtime());
    const held = toNanoseconds(timestampDifference(packet.transmit, packet.receive));
    return { exchange: { t1: departed, t2, t3: t2 + held, t4: arrived }, by };
  }

  /** Is another attempt worth while? */
  #mayRecover(error: unknown): boolean {
    if (error instanceof RejectedReply) {
      if (error.rejection === "unsynchronised") return this.#pacing.retriesUnsynchronised;
      return error.rejection !== "kiss";
    }
    // A server that renews its certificate or starts again resets who was waiting to be accepted.
    if (error instanceof NoConnection) return error.cause instanceof Deno.errors.ConnectionReset;
    return error instanceof ChannelError && !looksLikeTls(this.conversation.reply);
  }
}
