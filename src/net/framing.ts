/**
 * Messages of a fixed length over a stream of bytes, with no framing.
 *
 * @module
 */

import type { Sink, Source, Stamper } from "./network.ts";

/** Assembles messages of a fixed length, however small the pieces they come in. */
export class MessageReader {
  /** How many bytes of {@linkcode message} have been read. */
  filled = 0;
  /** When the last of them arrived, on the timeline of `now`. */
  arrived = 0n;
  /** Who took {@linkcode arrived}. */
  stamper: Stamper = "user";
  /** Why reading failed. */
  error: unknown;
  readonly #source: Source;
  readonly #now: () => bigint;

  /**
   * @param source Never asked for more than the rest of one message.
   * @param message Where each message is put; all are of its length.
   * @param now Read as soon as bytes have come, before anything else.
   */
  constructor(source: Source, readonly message: Uint8Array, now: () => bigint) {
    this.#source = source;
    this.#now = now;
  }

  /**
   * Reads the next message. Never rejects, so it can be left pending.
   *
   * @returns Whether the message is complete; if not, the stream ended or there
   * is an {@linkcode error}.
   */
  read(): Promise<boolean> {
    this.filled = 0;
    return this.#source.read(this.message).then(this.#take, this.#fail);
  }

  /** Attached directly to the promise of the read, so that nothing else runs before the timestamp. */
  readonly #take = (count: number | null): boolean | Promise<boolean> => {
    const arrived = this.#source.arrived ?? null;
    this.stamper = arrived === null ? "user" : "kernel";
    this.arrived = arrived ?? this.#now();
    if (count === null) return false;
    this.filled += count;
    if (this.filled === this.message.length) return true;
    return this.#source.read(this.message.subarray(this.filled)).then(this.#take, this.#fail);
  };

  readonly #fail = (error: unknown): boolean => {
    this.error = error;
    return false;
  };
}

/** Writes one message repeatedly, with a single call each time unless the stream is congested. */
export class MessageWriter {
  /** Why writing failed. */
  error: unknown;
  /** The pending write, if any. */
  writing: Promise<void> | null = null;
  readonly #sink: Sink;
  readonly #message: Uint8Array;

  /** @param message What {@linkcode write} writes by default: its bytes at each call. */
  constructor(sink: Sink, message: Uint8Array) {
    this.#sink = sink;
    this.#message = message;
  }

  /**
   * Writes the message, or another. Calls the sink at once.
   *
   * @returns Resolves when all is written or there is an {@linkcode error};
   * never rejects, so it can be left pending.
   */
  write(message: Uint8Array = this.#message): Promise<void> {
    return this.writing = this.#write(message);
  }

  #write(bytes: Uint8Array): Promise<void> {
    return this.#sink.write(bytes).then((count) => {
      if (count < bytes.length) return this.#write(bytes.subarray(count));
      this.writing = null;
    }, (error) => {
      this.error = error;
      this.writing = null;
    });
  }
}
