/**
 * Connections that a worker waits for with all others at once. What is done
 * with a request is as in `conversation.ts`; how it comes is not.
 *
 * @module
 */

import { NoRoom, NOTHING, type StreamSockets } from "../net/libc/streams.ts";
import { PACKET_SIZE } from "../ntp/packet.ts";
import { nanoseconds } from "../ntp/timestamp.ts";
import { refuseRequest } from "../ntp/validation.ts";
import type { Admission, Client } from "./admission.ts";
import { answerMessage } from "./answer.ts";
import type { Figures, Refusal } from "./figures.ts";
import { stampTransmit } from "./respond.ts";
import { Watched } from "./stillness.ts";

/** Connections that are accepted before others have their turn. */
const ACCEPTS = 64;

/** Nanoseconds before a failed accept is tried again. */
const ACCEPT_PAUSE = nanoseconds(0.1);

/** One connection. There may be ten thousand, so it is kept small. */
class Stream extends Watched {
  /** What has come of a message that is not whole; `null` if nothing has. */
  partial: Uint8Array | null = null;
  /** How many bytes that is. */
  filled = 0;
  /** What there was no room for yet. */
  unsent: Uint8Array<ArrayBuffer> | null = null;
  /** Why it ends when that is sent. */
  refusal: Refusal | null = null;

  constructor(readonly fd: number, readonly client: Client) {
    super();
  }

  override get idle(): boolean {
    return this.filled === 0 && this.unsent === null;
  }

  replied(): void {
    this.replies++;
  }
}

/** Accepts connections and answers on each for as long as it lasts. */
export class StreamServer {
  /** What the server says of its own clock, see `announcement`. */
  announced: Uint8Array = new Uint8Array();
  readonly #sockets: StreamSockets;
  readonly #admission: Admission;
  readonly #realtime: () => bigint;
  readonly #figures: Figures;
  readonly #reply = new Uint8Array(PACKET_SIZE);
  /** By descriptor. */
  readonly #streams: (Stream | undefined)[] = [];
  #open = 0;
  readonly #listeners = new Set<number>();
  /** Listeners that nobody waits for, for want of descriptors, until then. */
  readonly #paused = new Map<number, bigint>();
  #stopping = false;

  constructor(
    sockets: StreamSockets,
    admission: Admission,
    realtime: () => bigint,
    figures: Figures,
  ) {
    this.#sockets = sockets;
    this.#admission = admission;
    this.#realtime = realtime;
    this.#figures = figures;
  }

  /** Connections. */
  get open(): number {
    return this.#open;
  }

  /** Accepts connections from a socket that listens. */
  listen(listener: number): void {
    this.#sockets.attend(listener);
    this.#listeners.add(listener);
  }

  /** A descriptor has something. One that is none of these is ignored: it was closed just before. */
  onReady(fd: number): void {
    const stream = this.#streams[fd];
    if (stream !== undefined) {
      if (stream.unsent === null) this.#receive(stream);
      else this.#sendRest(stream, stream.unsent);
    } else if (this.#listeners.has(fd)) this.#accept(fd);
  }

  /** To be called ten times a second or more. */
  resume(): void {
    if (this.#paused.size === 0) return;
    const now = this.#realtime();
    for (const [listener, until] of this.#paused) {
      // The clock may have been set back.
      if (now < until && until - now <= ACCEPT_PAUSE) continue;
      this.#paused.delete(listener);
      this.listen(listener);
    }
  }

  /** To be called once a second: closes those on which nothing has happened for too long. */
  checkTimeouts(idleTimeout: number): void {
    for (const stream of this.#streams) {
      const refusal = stream?.look(idleTimeout) ?? null;
      if (refusal !== null) this.#end(stream!, stream!.refusal ?? refusal);
    }
  }

  /** Accepts nobody any more, and answers only what has begun to come. */
  stop(): void {
    this.#stopping = true;
    for (const listener of this.#listeners) this.#sockets.ignore(listener);
    this.#listeners.clear();
    this.#paused.clear();
    for (const stream of this.#streams) if (stream?.idle) this.#end(stream, null);
  }

  /** Closes all connections. */
  close(): void {
    for (const stream of this.#streams) if (stream !== undefined) this.#end(stream, null);
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
      const client = this.#admission.connect(address, this.#realtime());
      if (typeof client === "string") {
        this.#sockets.close(fd);
        this.#figures.refuse("tcp", client);
        continue;
      }
      this.#streams[fd] = new Stream(fd, client);
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
      this.#paused.set(listener, this.#realtime() + ACCEPT_PAUSE);
      return null;
    }
  }

  #receive(stream: Stream): void {
    const sockets = this.#sockets;
    const { filled } = stream;
    const count = sockets.receive(stream.fd, PACKET_SIZE - filled);
    if (count <= 0) {
      if (count === NOTHING) return;
      this.#end(stream, count < 0 ? "reset" : filled > 0 ? "incomplete" : null);
      return;
    }
    let message = sockets.received;
    if (filled === 0) {
      const refusal = refuseRequest(message[0]!);
      if (refusal !== null) return this.#end(stream, refusal);
    }
    // T2 is when the message was whole.
    let arrived = sockets.arrived();
    if (arrived === 0n) {
      arrived = this.#realtime();
      this.#figures.unstamped("tcp");
    }
    if (count < PACKET_SIZE) {
      message = stream.partial ??= new Uint8Array(PACKET_SIZE);
      message.set(sockets.received.subarray(0, count), filled);
      stream.filled += count;
      if (stream.filled < PACKET_SIZE) return;
      stream.partial = null;
      stream.filled = 0;
    }
    const { client } = stream;
    stream.refusal = answerMessage(
      this.#admission,
      client,
      message,
      this.announced,
      arrived,
      this.#reply,
    );
    stampTransmit(this.#reply, this.#realtime());
    const sent = sockets.send(stream.fd, this.#reply);
    if (stream.refusal === null) {
      stream.replied();
      this.#figures.reply("tcp");
    }
    if (sent < PACKET_SIZE) this.#keep(stream, this.#reply, sent);
    else if (stream.refusal !== null || this.#stopping) this.#end(stream, stream.refusal);
  }

  /** The client sends and does not read: nothing more is read of it until it has what is here. */
  #keep(stream: Stream, bytes: Uint8Array<ArrayBuffer>, sent: number): void {
    if (sent < 0 && sent !== NOTHING) return this.#end(stream, "reset");
    stream.unsent = bytes.slice(Math.max(sent, 0));
    this.#sockets.await(stream.fd, "write");
  }

  #sendRest(stream: Stream, bytes: Uint8Array<ArrayBuffer>): void {
    const sent = this.#sockets.send(stream.fd, bytes);
    if (sent < bytes.length) return this.#keep(stream, bytes, sent);
    stream.unsent = null;
    if (stream.refusal !== null || this.#stopping) this.#end(stream, stream.refusal);
    else this.#sockets.await(stream.fd, "read");
  }

  #end(stream: Stream, refusal: Refusal | null): void {
    this.#streams[stream.fd] = undefined;
    this.#open--;
    this.#sockets.close(stream.fd);
    this.#admission.disconnect(stream.client);
    if (refusal !== null && !this.#stopping) this.#figures.refuse("tcp", refusal);
  }
}
