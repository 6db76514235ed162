/**
 * Connections that are waited for all at once, in the kernel. What is done
 * with a request is as in `conversation.ts`; how it comes is not.
 *
 * @module
 */

import type { Clock } from "../clock/clock.ts";
import { WOULD_BLOCK } from "../net/linux/message.ts";
import { NoRoom, type StreamSockets } from "../net/linux/streams.ts";
import { PACKET_SIZE } from "../ntp/packet.ts";
import { nanoseconds, SECOND } from "../ntp/timestamp.ts";
import { refuseRequest } from "../ntp/validation.ts";
import type { Admission, Client } from "./admission.ts";
import { answerMessage } from "./answer.ts";
import type { Figures, Refusal } from "./counters.ts";
import { replyTemplate, stampTransmit } from "./reply.ts";
import { GRACE, IdleMonitor } from "./idle_monitor.ts";

/** Connections that are accepted before others have their turn. */
const ACCEPTS = 64;

/** Nanoseconds between two looks at the kernel's clock and at what connections do. */
const TICK = SECOND;

/** Nanoseconds before a failed accept is tried again. */
const ACCEPT_PAUSE = nanoseconds(0.1);

/**
 * What one descriptor is used for: a connection, and when that is over, another. Nothing is left
 * for the garbage collector, which seldom finds time in a loop that waits in the kernel.
 */
class Stream extends IdleMonitor {
  /** Whose connection it is; `null` if it is none. */
  client: Client | null = null;
  /** How many bytes have come of a message that is not whole. */
  filled = 0;
  /** What there was no room for yet. */
  unsent: Uint8Array<ArrayBuffer> | null = null;
  /** Why it ends when that is sent. */
  refusal: Refusal | null = null;
  #partial: Uint8Array | null = null;

  constructor(readonly fd: number) {
    super();
  }

  override get idle(): boolean {
    return this.filled === 0 && this.unsent === null;
  }

  /** Where a message is put together that comes in pieces. */
  get partial(): Uint8Array {
    return this.#partial ??= new Uint8Array(PACKET_SIZE);
  }

  /** Becomes a client's. */
  begin(client: Client): void {
    this.forget();
    this.client = client;
    this.filled = 0;
    this.unsent = null;
    this.refusal = null;
  }

  replied(): void {
    this.replies++;
  }
}

/** How streams are served. */
export interface StreamOptions {
  /** What to announce. Default: by the kernel's own state. */
  readonly stratum: number | undefined;
  /** Seconds. */
  readonly idleTimeout: number;
}

/** Accepts connections and answers on each for as long as it lasts. */
export class StreamServer {
  /** What the server says of its own clock, see `replyTemplate`. */
  announced: Uint8Array = new Uint8Array();
  readonly #sockets: StreamSockets;
  readonly #admission: Admission;
  readonly #clock: Clock;
  readonly #figures: Figures;
  readonly #options: StreamOptions;
  readonly #reply = new Uint8Array(PACKET_SIZE);
  /** By descriptor, open or not. */
  readonly #streams: (Stream | undefined)[] = [];
  #open = 0;
  readonly #listeners = new Set<number>();
  /** Listeners that nobody waits for, for want of descriptors, until then: monotonic. */
  readonly #paused = new Map<number, bigint>();
  /** When the next look is due: monotonic. */
  #due: bigint;
  /** When all must be over: monotonic; `null` as long as nobody has asked for it. */
  #end: bigint | null = null;

  constructor(
    sockets: StreamSockets,
    admission: Admission,
    clock: Clock,
    figures: Figures,
    options: StreamOptions,
  ) {
    this.#sockets = sockets;
    this.#admission = admission;
    this.#clock = clock;
    this.#figures = figures;
    this.#options = options;
    this.#due = clock.monotonic();
  }

  /** Accepts connections from a socket that listens. */
  listen(listener: number): void {
    this.#listeners.add(listener);
    this.#sockets.attend(listener);
  }

  /** A descriptor has something. One that is none of these is ignored: it was closed just before. */
  onReady(fd: number): void {
    const stream = this.#streams[fd];
    if (stream !== undefined && stream.client !== null) {
      if (stream.unsent === null) this.#receive(stream);
      else this.#sendRest(stream, stream.unsent);
    } else if (this.#listeners.has(fd)) this.#accept(fd);
  }

  /**
   * Does what is due. To be called ten times a second or more.
   *
   * @returns Is all over, which somebody has asked for?
   */
  turn(): boolean {
    const now = this.#clock.monotonic();
    if (now >= this.#due) this.#tick(now);
    for (const [listener, until] of this.#paused) if (now >= until) this.#resume(listener, now);
    if (!this.#figures.stopping) return false;
    if (this.#end === null) this.#stop(now);
    return this.#open === 0 || now >= this.#end!;
  }

  /** Closes all connections. */
  close(): void {
    for (const stream of this.#opened()) this.#close(stream, null);
  }

  /** What is done once a second, so that no request has to. */
  #tick(now: bigint): void {
    this.#due = now + TICK;
    this.#figures.beat();
    const clock = this.#clock;
    const realtime = clock.realtime();
    const { stratum, idleTimeout } = this.#options;
    this.announced = replyTemplate(clock.state(), clock.precision, realtime, stratum);
    this.#admission.forget(realtime);
    for (const stream of this.#opened()) {
      const refusal = stream.look(idleTimeout);
      if (refusal !== null) this.#close(stream, stream.refusal ?? refusal);
    }
  }

  /** Accepts nobody any more, and answers only what has begun to come. */
  #stop(now: bigint): void {
    this.#end = now + nanoseconds(GRACE);
    for (const listener of this.#listeners) this.#sockets.ignore(listener);
    this.#listeners.clear();
    this.#paused.clear();
    for (const stream of this.#opened()) if (stream.idle) this.#close(stream, null);
  }

  #resume(listener: number, now: bigint): void {
    this.#paused.delete(listener);
    try {
      this.listen(listener);
    } catch (error) {
      if (!(error instanceof NoRoom)) throw error;
      this.#listeners.delete(listener);
      this.#paused.set(listener, now + ACCEPT_PAUSE);
    }
  }

  *#opened(): Generator<Stream> {
    for (const stream of this.#streams) {
      if (stream !== undefined && stream.client !== null) yield stream;
    }
  }

  #accept(listener: number): void {
    for (let i = 0; i < ACCEPTS; i++) {
      const accepted = this.#tryAccept(listener);
      if (accepted === null) return;
      if (accepted === "lost") {
        this.#figures.refuse("tcp", "reset");
        continue;
      }
      const { fd, address } = accepted;
      const client = this.#admission.connect(address, this.#clock.realtime());
      if (typeof client === "string") {
        this.#sockets.close(fd);
        this.#figures.refuse("tcp", client);
        continue;
      }
      (this.#streams[fd] ??= new Stream(fd)).begin(client);
      this.#open++;
      this.#figures.connect();
    }
  }

  #tryAccept(listener: number) {
    try {
      return this.#sockets.accept(listener);
    } catch (error) {
      if (!(error instanceof NoRoom)) throw error;
      this.#figures.acceptFailed(error.number);
      this.#sockets.ignore(listener);
      this.#listeners.delete(listener);
      this.#paused.set(listener, this.#clock.monotonic() + ACCEPT_PAUSE);
      return null;
    }
  }

  #receive(stream: Stream): void {
    const sockets = this.#sockets;
    const { filled } = stream;
    const count = sockets.receive(stream.fd, PACKET_SIZE - filled);
    if (count <= 0) {
      if (count === WOULD_BLOCK) return;
      this.#close(stream, count < 0 ? "reset" : filled > 0 ? "incomplete" : null);
      return;
    }
    let message = sockets.received;
    if (filled === 0) {
      const refusal = refuseRequest(message[0]!);
      if (refusal !== null) return this.#close(stream, refusal);
    }
    // T2 is when the message was whole.
    let arrived = sockets.arrived();
    if (arrived === 0n) {
      arrived = this.#clock.realtime();
      this.#figures.unstamped("tcp");
    }
    if (count < PACKET_SIZE) {
      message = stream.partial;
      message.set(sockets.received.subarray(0, count), filled);
      stream.filled += count;
      if (stream.filled < PACKET_SIZE) return;
      stream.filled = 0;
    }
    stream.refusal = answerMessage(
      this.#admission,
      stream.client!,
      message,
      this.announced,
      arrived,
      this.#reply,
    );
    const transmitted = this.#clock.realtime();
    stampTransmit(this.#reply, transmitted);
    const sent = sockets.send(stream.fd, this.#reply);
    if (stream.refusal === null) {
      stream.replied();
      this.#figures.reply("tcp", transmitted - arrived);
    }
    if (sent < PACKET_SIZE) this.#keep(stream, this.#reply, sent);
    else if (stream.refusal !== null || this.#end !== null) this.#close(stream, stream.refusal);
  }

  /** The client sends and does not read: nothing more is read of it until it has what is here. */
  #keep(stream: Stream, bytes: Uint8Array<ArrayBuffer>, sent: number): void {
    if (sent < 0 && sent !== WOULD_BLOCK) return this.#close(stream, "reset");
    stream.unsent = bytes.slice(Math.max(sent, 0));
    this.#sockets.await(stream.fd, "write");
  }

  #sendRest(stream: Stream, bytes: Uint8Array<ArrayBuffer>): void {
    const sent = this.#sockets.send(stream.fd, bytes);
    if (sent < bytes.length) return this.#keep(stream, bytes, sent);
    stream.unsent = null;
    if (stream.refusal !== null || this.#end !== null) this.#close(stream, stream.refusal);
    else this.#sockets.await(stream.fd, "read");
  }

  #close(stream: Stream, refusal: Refusal | null): void {
    this.#open--;
    this.#sockets.close(stream.fd);
    this.#admission.disconnect(stream.client!);
    this.#figures.disconnect();
    stream.client = null;
    if (refusal !== null && this.#end === null) this.#figures.refuse("tcp", refusal);
  }
}
