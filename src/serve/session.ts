/**
 * A client's requests over one connection, without the connection: bytes in,
 * and what is to be done next. Pure: who carries the bytes hands in the times.
 *
 * @module
 */

import { PACKET_SIZE } from "../ntp/packet.ts";
import { refuseRequest } from "../ntp/validation.ts";
import type { Admission, Client } from "./admission.ts";
import type { Counters, Refusal } from "./counters.ts";
import { IdleMonitor } from "./idle_monitor.ts";
import { answerMessage, stampTransmit } from "./reply.ts";

/** What the sessions of a service share. */
export class Sessions {
  /** What all replies say alike, see `replyTemplate`. */
  template: Uint8Array = new Uint8Array();
  /** Is the server ending? No request is read any more then, and nothing is refused. */
  stopping = false;

  /** @param now Nanoseconds since the Unix epoch. */
  constructor(
    readonly admission: Admission,
    readonly counters: Counters,
    readonly now: () => bigint,
  ) {}

  /** Admits a client that has connected. @returns `null` if it is refused, which is counted. */
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

/** One connection's session. When it has ended, the object can begin another. */
export class Session extends IdleMonitor {
  /** Whose it is; `null` if it has ended. */
  client: Client | null = null;
  /** Why it is to end, once what is being sent has been. */
  refusal: Refusal | null = null;
  readonly #sessions: Sessions;
  /** Where a message is put together that comes in pieces. */
  #pieces: Uint8Array<ArrayBuffer> | null = null;
  #filled = 0;
  #message: Uint8Array = new Uint8Array();
  #arrived = 0n;
  #transmitted = 0n;

  constructor(sessions: Sessions) {
    super();
    this.#sessions = sessions;
  }

  /** Begins for a client that was admitted. */
  begin(client: Client): void {
    this.forget();
    this.client = client;
    this.refusal = null;
    this.#filled = 0;
  }

  /** Has nothing come yet of a message? */
  get empty(): boolean {
    return this.#filled === 0;
  }

  /** How many bytes of a message have not come. */
  get missing(): number {
    return PACKET_SIZE - this.#filled;
  }

  /** Where these may be put. */
  get room(): Uint8Array<ArrayBuffer> {
    const pieces = this.#pieces ??= new Uint8Array(PACKET_SIZE);
    return this.#filled === 0 ? pieces : pieces.subarray(this.#filled);
  }

  /**
   * Takes bytes that have come, no more than are {@linkcode missing}.
   *
   * @param bytes Holds them at its beginning; {@linkcode room}, or any other array.
   * @returns Whether a message is whole, or what came is no request: the session is to end then.
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
   * Answers the message that is whole, all but T3. If that is a {@linkcode refusal}, the reply is
   * the last.
   *
   * @param arrived T2: when the message was whole.
   * @param reply Where to, 48 bytes.
   */
  answer(arrived: bigint, reply: Uint8Array): void {
    const { admission, template } = this.#sessions;
    const client = this.client!;
    this.#arrived = arrived;
    this.refusal = answerMessage(admission, client, this.#message, template, arrived, reply);
  }

  /** Writes T3 into the reply, which is to be sent at once. */
  stamp(reply: Uint8Array): void {
    this.#transmitted = this.#sessions.now();
    stampTransmit(reply, this.#transmitted);
  }

  /** Counts the reply that has been sent. */
  replied(): void {
    if (this.refusal !== null) return;
    this.replies++;
    this.#sessions.counters.reply("tcp", this.#transmitted - this.#arrived);
  }

  /** Ends, and counts why. @param broken Did the connection break? */
  end(broken: boolean): void {
    const { admission, counters, stopping } = this.#sessions;
    const refusal = this.refusal ?? (broken ? "reset" : this.#filled > 0 ? "incomplete" : null);
    admission.disconnect(this.client!);
    counters.disconnect();
    this.client = null;
    if (refusal !== null && !stopping) counters.refuse("tcp", refusal);
  }
}
