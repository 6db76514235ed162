/**
 * A client's requests on one connection, without the connection: takes bytes
 * and says what to do next. It opens and waits for nothing; clock, admission and
 * counters are passed in.
 *
 * @module
 */

import { PACKET_SIZE } from "../ntp/packet.ts";
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

  /**
   * @param now The time in nanoseconds since the Unix epoch.
   * @param idleTimeout The most seconds between two requests on a connection.
   */
  constructor(
    readonly admission: Admission,
    readonly counters: Counters,
    readonly now: () => bigint,
    readonly idleTimeout: number,
  ) {}

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
  /** Assembles a message that comes in pieces. */
  #pieces: Uint8Array<ArrayBuffer> | null = null;
  #filled = 0;
  #message: Uint8Array = new Uint8Array();
  #arrived = 0n;
  #transmitted = 0n;

  constructor(sessions: SessionContext) {
    super();
    this.#sessions = sessions;
  }

  begin(client: Client): void {
    this.reset();
    this.client = client;
    this.refusal = null;
    this.#filled = 0;
  }

  /** Whether no byte of the next message has come yet. */
  get empty(): boolean {
    return this.#filled === 0;
  }

  /** The number of bytes that the message still lacks. */
  get missing(): number {
    return PACKET_SIZE - this.#filled;
  }

  /** A buffer for these bytes. */
  get room(): Uint8Array<ArrayBuffer> {
    const pieces = this.#pieces ??= new Uint8Array(PACKET_SIZE);
    return this.#filled === 0 ? pieces : pieces.subarray(this.#filled);
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
        return "whole";
      }
    }
    const { room } = this;
    if (bytes.buffer !== room.buffer) room.set(bytes.subarray(0, count));
    this.#filled += count;
    if (this.#filled < PACKET_SIZE) return "more";
    this.#filled = 0;
    this.#message = this.#pieces!;
    return "whole";
  }

  /**
   * Writes the reply to the whole message, but for T3: the time, or a kiss-o'-death if the client
   * asks too often. That sets {@linkcode refusal}: the reply must be the last.
   *
   * @param arrived T2: when the last byte of the message arrived.
   * @param reply 48 bytes to write to.
   */
  answer(arrived: bigint, reply: Uint8Array): void {
    const { admission, template } = this.#sessions;
    this.#arrived = arrived;
    respond(this.#message, reply, template, arrived);
    this.refusal = admission.request(this.client!, arrived) ? null : "rate";
    if (this.refusal !== null) kissRate(reply);
  }

  /** Writes T3 into the reply. Send it at once. */
  stamp(reply: Uint8Array): void {
    this.#transmitted = this.#sessions.now();
    stampTransmit(reply, this.#transmitted);
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
