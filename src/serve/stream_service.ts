/**
 * One connection, from its first request to its end.
 *
 * @module
 */

import { MessageReader, MessageWriter } from "../net/framing.ts";
import type { Connection } from "../net/network.ts";
import { PACKET_SIZE } from "../ntp/packet.ts";
import { refuseRequest } from "../ntp/validation.ts";
import type { Admission, Client } from "./admission.ts";
import { answerMessage } from "./answer.ts";
import type { FairQueue } from "./fair_queue.ts";
import type { Figures, Refusal } from "./counters.ts";
import { stampTransmit } from "./reply.ts";
import { IdleMonitor } from "./idle_monitor.ts";

/** What all conversations of a server share. */
export interface Context {
  readonly admission: Admission;
  readonly turns: FairQueue;
  readonly realtime: () => bigint;
  /** What the server says of its own clock, see `replyTemplate`. */
  announced: Uint8Array;
  /** Is no request to be read any more? */
  stopping: boolean;
  readonly figures: Figures;
  /**
   * Told once of each conversation that it is over.
   *
   * @param refusal Why, if it did not end well.
   */
  readonly onEnd: (conversation: Conversation, refusal: Refusal | null) => void;
}

/**
 * Answers one client for as long as it asks. There may be ten thousand, so it
 * is kept small: callbacks in place of async functions saved 1 kB for each.
 */
export class Conversation extends IdleMonitor {
  readonly client: Client;
  readonly #connection: Connection;
  readonly #context: Context;
  readonly #reader: MessageReader;
  readonly #writer: MessageWriter;
  readonly #reply: Uint8Array;
  #refusal: Refusal | null = null;
  /** Is TLS being agreed on? */
  #handshaking = false;

  constructor(connection: Connection, client: Client, context: Context) {
    super();
    this.#connection = connection;
    this.client = client;
    this.#context = context;
    const bytes = new Uint8Array(2 * PACKET_SIZE);
    const request = bytes.subarray(0, PACKET_SIZE);
    this.#reply = bytes.subarray(PACKET_SIZE);
    this.#reader = new MessageReader(connection, request, context.realtime, isRefused);
    this.#writer = new MessageWriter(connection, this.#reply);
  }

  override get idle(): boolean {
    return this.#reader.filled === 0 && this.#writer.writing === null && !this.#handshaking;
  }

  /** Ends it. */
  close(): void {
    this.#connection.close(this.#writer.writing !== null);
  }

  /** @param secure Does TLS come first? */
  start(secure: boolean): void {
    (secure ? this.#awaitTls() : this.#read()).then(this.#onRequest);
  }

  /** A request has come, or there will be none. */
  readonly #onRequest = (whole: boolean): void => {
    const { admission, turns, announced, realtime, figures } = this.#context;
    const reader = this.#reader;
    const writer = this.#writer;
    if (!whole || writer.error !== undefined) {
      this.#end();
      return;
    }
    if (writer.writing !== null) {
      // The client sends and does not read.
      writer.writing.then(() => this.#onRequest(true));
      return;
    }
    const { message, arrived } = reader;
    this.#refusal = answerMessage(
      admission,
      this.client,
      message,
      announced,
      arrived,
      this.#reply,
    );
    if (this.#refusal !== null) {
      stampTransmit(this.#reply, realtime());
      writer.write().then(() => this.#end());
      return;
    }
    // The next read is under way before this reply leaves: after T3 nothing is left to do.
    const turn = turns.take();
    const reading = turn === null ? this.#read() : turn.then(() => this.#read());
    const transmitted = realtime();
    stampTransmit(this.#reply, transmitted);
    writer.write();
    this.replies++;
    figures.reply("tcp", transmitted - arrived);
    reading.then(this.#onRequest);
  };

  async #end(): Promise<void> {
    await this.#writer.writing;
    this.close();
    this.#context.onEnd(this, this.#reason());
  }

  #reason(): Refusal | null {
    const reader = this.#reader;
    if (this.#refusal !== null) return this.#refusal;
    if ((reader.error ?? this.#writer.error) !== undefined) return "reset";
    return reader.filled > 0 ? refuseRequest(reader.message[0]!) ?? "incomplete" : null;
  }

  /** To be called once a second. Closes it if nothing has happened for too long. */
  checkTimeouts(idleTimeout: number): void {
    const refusal = this.look(idleTimeout);
    if (refusal === null) return;
    this.#refusal ??= refusal;
    this.close();
  }

  #read(): Promise<boolean> {
    return this.#context.stopping ? Promise.resolve(false) : this.#reader.read();
  }

  async #awaitTls(): Promise<boolean> {
    this.#handshaking = true;
    try {
      await this.#connection.awaitTls!();
    } catch {
      this.#refusal ??= "tls";
      return false;
    }
    this.#handshaking = false;
    return this.#read();
  }
}

const isRefused = (firstByte: number): boolean => refuseRequest(firstByte) !== null;
