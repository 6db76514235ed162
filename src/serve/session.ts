/**
 * A client's requests on one connection, without the connection: takes bytes
 * and says what to do next. It opens and waits for nothing; clock, admission and
 * counters are passed in.
 *
 * @module
 */

import {
  isAuthentic,
  KEY_ID_SIZE,
  keyIdOf,
  type Keys,
  messageSize,
  versionOf,
} from "../ntp/mac.ts";
import { PACKET_SIZE, VERSION } from "../ntp/packet.ts";
import { refuseRequest } from "../ntp/validation.ts";
import type { Admission, Client } from "./admission.ts";
import type { Counters, Refusal } from "./counters.ts";
import { IdleMonitor } from "./idle_monitor.ts";
import { kissRate, respond, stampTransmit } from "./reply.ts";

/** What all sessions of a server share. */
export class SessionContext {
  /** Made by `replyTemplate`, and renewed once a second. */
  template: Uint8Array = new Uint8Array();
  /**
   * Whether the server is stopping: no more requests are read from connections, and how these end
   * is no refusal.
   */
  stopping = false;
  /** Bytes that a message is taken to have: the longest with a MAC, if there are keys. */
  readonly size: number;

  /**
   * @param now The time in nanoseconds since the Unix epoch.
   * @param idleTimeout The most seconds between two requests on a connection.
   * @param keys Keys of requests with a MAC; `null` if there are none.
   */
  constructor(
    readonly admission: Admission,
    readonly counters: Counters,
    readonly now: () => bigint,
    readonly idleTimeout: number,
    readonly keys: Keys | null = null,
  ) {
    const sizes = [...keys?.values() ?? []].map((key) => messageSize(key, VERSION));
    this.size = Math.max(PACKET_SIZE, ...sizes);
  }

  /** Admits a client that has connected, or counts a refusal. @returns `null` if it is refused. */
  admit(address: string): Client | null {
    const client = this.admission.connect(address, this.now());
    if (typeof client === "string") {
      this.counters.refuse("tcp", client);
      return null;
    }
    this.counters.connect();
    return client;
  }
}

/** One connection's session. Once it has ended, the object can begin another. */
export class Session extends IdleMonitor {
  /** The client; `null` once the session has ended. */
  client: Client | null = null;
  /** Why to end the session once pending bytes are sent; `null` to go on. */
  refusal: Refusal | null = null;
  readonly #sessions: SessionContext;
  /** Assembles a message that comes in pieces, or with a MAC. */
  #pieces: Uint8Array<ArrayBuffer> | null = null;
  #filled = 0;
  /** Bytes that the message is taken to have. */
  #size: number;
  /** Begins with the whole message. */
  #message: Uint8Array = new Uint8Array();
  #length = PACKET_SIZE;
  /** A buffer for replies with a MAC. */
  #signed: Uint8Array<ArrayBuffer> | null = null;
  #arrived = 0n;
  #transmitted = 0n;

  constructor(sessions: SessionContext) {
    super();
    this.#sessions = sessions;
    this.#size = sessions.size;
  }

  begin(client: Client): void {
    this.reset();
    this.client = client;
    this.refusal = null;
    this.#filled = 0;
    this.#size = this.#sessions.size;
  }

  /** Whether no byte of the next message has come yet. */
  get empty(): boolean {
    return this.#filled === 0;
  }

  /** The most bytes to read: those that the message still lacks, and perhaps some of the next. */
  get missing(): number {
    return this.#size - this.#filled;
  }

  /** A buffer for these bytes. */
  get room(): Uint8Array<ArrayBuffer> {
    const pieces = this.#pieces ??= new Uint8Array(this.#size);
    const isAll = this.#filled === 0 && pieces.length === this.#size;
    return isAll ? pieces : pieces.subarray(this.#filled, this.#size);
  }

  /**
   * Takes received bytes, no more than are {@linkcode missing}.
   *
   * @param bytes Starts with them; {@linkcode room} or any other array.
   * @returns Whether the message is whole, needs more bytes, or is refused; if so, end the session.
   */
  take(bytes: Uint8Array, count: number): "more" | "whole" | "refused" {
    if (this.#filled === 0) {
      this.refusal = refuseRequest(bytes[0]!);
      if (this.refusal !== null) return "refused";
      if (count === PACKET_SIZE) {
        this.#message = bytes;
        this.#length = PACKET_SIZE;
        return "whole";
      }
    }
    const { room } = this;
    if (bytes.buffer !== room.buffer) room.set(bytes.subarray(0, count));
    this.#filled += count;
    if (this.#filled < PACKET_SIZE) return "more";
    const { keys } = this.#sessions;
    return keys === null ? this.#cut(PACKET_SIZE) : this.#frame(keys);
  }

  /**
   * Takes a message out of the pieces. What follows its header is a key's ID, or the next request:
   * no ID begins like one. Nothing follows if nothing has come yet, since whoever sends no MAC waits
   * for the reply.
   */
  #frame(keys: Keys): "more" | "whole" | "refused" {
    const pieces = this.#pieces!;
    this.refusal = refuseRequest(pieces[0]!);
    if (this.refusal !== null) return "refused";
    const isPlain = this.#filled === PACKET_SIZE || refuseRequest(pieces[PACKET_SIZE]!) === null;
    if (isPlain) return this.#cut(PACKET_SIZE);
    if (this.#filled < PACKET_SIZE + KEY_ID_SIZE) return "more";
    const key = keys.get(keyIdOf(pieces));
    const size = key === undefined ? 0 : messageSize(key, versionOf(pieces));
    if (size > this.#size) this.#grow(size);
    if (size > this.#filled) return "more";
    if (!isAuthentic(pieces.subarray(0, size), key)) {
      this.refusal = "mac";
      return "refused";
    }
    return this.#cut(size);
  }

  /** Makes room for a longer MAC than those of version 4. */
  #grow(size: number): void {
    this.#size = size;
    if (size <= this.#pieces!.length) return; // It was needed before.
    const pieces = new Uint8Array(size);
    pieces.set(this.#pieces!);
    this.#pieces = pieces;
  }

  /** The message is whole; what follows it, less than a header, belongs to the next. */
  #cut(length: number): "whole" {
    this.#message = this.#pieces!;
    this.#length = length;
    this.#filled -= length;
    this.#size = this.#sessions.size;
    return "whole";
  }

  /**
   * Writes the reply to the whole message, but for T3: the time, or a kiss-o'-death if the client
   * asks too often. That sets {@linkcode refusal}: the reply must be the last.
   *
   * @param arrived T2: when the last byte of the message arrived.
   * @param plain 48 bytes for a reply without a MAC.
   * @returns The reply: `plain`, or a longer one.
   */
  answer(arrived: bigint, plain: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
    const { admission, template } = this.#sessions;
    const reply = this.#length === PACKET_SIZE ? plain : this.#signedReply();
    this.#arrived = arrived;
    respond(this.#message, reply, template, arrived);
    if (this.#filled > 0) this.#pieces!.copyWithin(0, this.#length, this.#length + this.#filled);
    this.refusal = admission.request(this.client!, arrived) ? null : "rate";
    if (this.refusal !== null) kissRate(reply);
    return reply;
  }

  /** A buffer for a reply as long as the message. It may be in use until the reply has been sent. */
  #signedReply(): Uint8Array<ArrayBuffer> {
    if (this.#signed?.length !== this.#length) this.#signed = new Uint8Array(this.#length);
    return this.#signed!;
  }

  /** Writes T3, and a MAC, into the reply. Send it at once. */
  stamp(reply: Uint8Array): void {
    this.#transmitted = this.#sessions.now();
    stampTransmit(reply, this.#transmitted, this.#sessions.keys);
  }

  /** Counts the reply. Call it when the reply has been handed over. */
  replied(): void {
    if (this.refusal !== null) return;
    this.replies++;
    this.#sessions.counters.reply("tcp", this.#transmitted - this.#arrived);
  }

  /** Ends the session and counts why. @param broken Whether the connection broke. */
  end(broken: boolean): void {
    const { admission, counters, stopping } = this.#sessions;
    const refusal = this.refusal ?? (broken ? "reset" : this.#filled > 0 ? "incomplete" : null);
    admission.disconnect(this.client!);
    counters.disconnect();
    this.client = null;
    if (refusal !== null && !stopping) counters.refuse("tcp", refusal);
  }
}
