/**
 * Requests and replies over one connection: one exchange after another, or, over
 * a long path, several at once.
 *
 * @module
 */

import { type Channel, ChannelError, type Received } from "../net/channel.ts";
import type { Stamps } from "../net/network.ts";
import type { MessageKey } from "../ntp/mac.ts";
import { encodeRequest, OFFSET, viewOf } from "../ntp/packet.ts";
import type { Environment } from "./environment.ts";
import type { Progress, Step } from "./plan.ts";

/**
 * A path is a long one if connecting takes longer than so many seconds, and the first reply too.
 * The first reply alone may be late because a program has just woken, or because somebody nearby
 * accepts connections for a server far away: then the second decides.
 */
export const FAR_SECONDS = 0.005;

/**
 * Requests that were sent ahead are lost if nothing is heard for so many seconds, or so many times
 * the longest delay: a server may have read several at once, and answered one.
 */
const LOST_SECONDS = 1;
const LOST_DELAYS = 3;

/** Requests that were sent ahead got no answer. The message starts with a verb. */
export class LostRequests extends ChannelError {}

/** What came of a request, which held this nonce. */
export type Reply = Stamps & { readonly nonce: bigint };

/** Asks over one connection. */
export class Pipeline implements Progress {
  isFar: boolean | null;
  roundTrip: number;
  readonly #channel: Channel;
  readonly #environment: Environment;
  readonly #key: MessageKey | null;
  readonly #maySendAhead: boolean;
  /** The requests in flight, in order. */
  readonly #sent: Omit<Reply, keyof Received>[] = [];
  /** The pending read. */
  #receiving: Promise<Received> | null = null;
  /** When the last reply came, on the monotonic timeline. */
  #heard: bigint | null = null;
  /** Seconds: the longest that an answer took. */
  #longestDelay: number;
  /** Has a request been sent before an earlier one was answered? */
  hasSentAhead = false;

  /**
   * @param key The key of the messages' MACs; `null` if they have none.
   * @param roundTrip Seconds that connecting took.
   * @param maySendAhead May requests be sent ahead, if the path is a long one?
   */
  constructor(
    channel: Channel,
    environment: Environment,
    key: MessageKey | null,
    roundTrip: number,
    maySendAhead: boolean,
  ) {
    this.#channel = channel;
    this.#environment = environment;
    this.#key = key;
    this.#maySendAhead = maySendAhead;
    this.roundTrip = this.#longestDelay = roundTrip;
    this.isFar = maySendAhead && roundTrip > FAR_SECONDS ? null : false;
  }

  get inFlight(): number {
    return this.#sent.length;
  }

  /**
   * Waits for the next reply, having sent a request unless one is in flight, and sends more
   * meanwhile if the path is a long one.
   *
   * @throws {LostRequests} if a server to which requests were sent ahead is silent.
   * @throws What the channel does.
   */
  async exchange(step: Step): Promise<Reply> {
    // The read is posted first, so that nothing but the write follows T1.
    this.#receive();
    if (this.#sent.length === 0) this.#send();
    const received = this.isFar === false ? await this.#receiving! : await this.#sendAhead(step);
    this.#receiving = null;
    const reply = { ...this.#answered(), ...received };
    this.#judge(Number(reply.arrived - reply.departed) / 1e9);
    this.#heard = reply.arrived;
    return reply;
  }

  #receive(): void {
    if (this.#receiving !== null) return;
    this.#receiving = this.#channel.receive();
    this.#receiving.catch(() => {}); // It may fail when nobody waits for it any more.
  }

  #send(): void {
    const nonce = this.#environment.nonce();
    encodeRequest(this.#channel.request, nonce);
    // Before T1, which it does not hold: the MAC takes time.
    this.#key?.sign(this.#channel.request);
    const departed = this.#channel.send();
    this.#sent.push({ nonce, departed });
  }

  /** Waits for a reply, and sends more requests meanwhile. */
  async #sendAhead({ wanted, spacingSeconds }: Step): Promise<Received> {
    const { clock, timers } = this.#environment;
    for (;;) {
      const { departed } = this.#sent.at(-1)!;
      const isFull = this.#sent.length >= wanted;
      // What nothing was sent ahead of was not passed over: the server is slow.
      if (isFull && !this.hasSentAhead) return await this.#receiving!;
      const lostSeconds = Math.max(LOST_SECONDS, LOST_DELAYS * this.#longestDelay);
      const seconds = this.isFar === null ? FAR_SECONDS : isFull ? lostSeconds : spacingSeconds;
      const since = isFull && this.#heard !== null && this.#heard > departed
        ? this.#heard
        : departed;
      const left = seconds - Number(clock.monotonic() - since) / 1e9;
      const { promise: late, resolve } = Promise.withResolvers<null>();
      const pause = left > 0 || !this.#channel.congested ? left : spacingSeconds;
      const cancel = timers.after(Math.max(pause, 0), () => resolve(null));
      const received = await Promise.race([this.#receiving!, late]).finally(cancel);
      if (received !== null) return received;
      if (this.isFar === null) this.isFar = true;
      else if (isFull) {
        const text = `left requests without an answer for ${lostSeconds.toFixed(1)} s`;
        throw new LostRequests(text);
      } else if (!this.#channel.congested) {
        this.#send();
        this.hasSentAhead = true;
      }
    }
  }

  /**
   * The request that the reply is to. The server answers in order: what it passes over is lost. A
   * reply to none of them is taken for one to the oldest, and will be rejected as such.
   */
  #answered(): Omit<Reply, keyof Received> {
    const origin = viewOf(this.#channel.reply).getBigUint64(OFFSET.origin);
    const index = this.#sent.findIndex(({ nonce }) => nonce === origin);
    return this.#sent.splice(0, Math.max(index, 0) + 1).at(-1)!;
  }

  /** Judges the path. @param delay Seconds until the reply. */
  #judge(delay: number): void {
    this.#longestDelay = Math.max(this.#longestDelay, delay);
    const isLong = delay > FAR_SECONDS;
    if (this.isFar === null) this.isFar = isLong;
    else if (!this.isFar && this.#heard === null && isLong && this.#maySendAhead) {
      this.isFar = null;
      this.roundTrip = delay;
    }
  }
}
