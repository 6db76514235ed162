/**
 * From a stream of bytes to messages of 48, with nothing around them.
 *
 * @module
 */

import type { Sink, Source, Stamper } from "./network.ts";

/** Assembles messages of a fixed length from however small the pieces are in which they come. */
export class MessageReader {
  /** How many bytes of {@linkcode message} have come. */
  filled = 0;
  /** When the last of them came, by the clock given, */
  arrived = 0n;
  /** and who says so. */
  stamper: Stamper = "user";
  /** What the source was rejected with. */
  error: unknown;
  readonly #source: Source;
  readonly #now: () => bigint;
  readonly #refuse: (firstByte: number) => boolean;

  /**
   * @param source Never asked for more than what is missing from one message.
   * @param message Where a message is put: its length is that of all messages.
   * @param now Read as soon as bytes have come, before anything else is done.
   * @param refuse Says whether a message is not worth waiting for. Default: never.
   */
  constructor(
    source: Source,
    readonly message: Uint8Array,
    now: () => bigint,
    refuse: (firstByte: number) => boolean = () => false,
  ) {
    this.#source = source;
    this.#now = now;
    this.#refuse = refuse;
  }

  /**
   * Reads the next message. Never rejected, so that it may be under way while
   * something else is waited for.
   *
   * @returns Whether the message is whole; if not, the stream ended, there is
   * an {@linkcode error}, or the first byte was refused.
   */
  read(): Promise<boolean> {
    this.filled = 0;
    return this.#source.read(this.message).then(this.#take, this.#fail);
  }

  /** Hung on the very promise of the read, so that no other turn of the event loop comes before the stamp. */
  readonly #take = (count: number | null): boolean | Promise<boolean> => {
    const stamped = this.#source.stamped ?? null;
    this.stamper = stamped === null ? "user" : "kernel";
    this.arrived = stamped ?? this.#now();
    if (count === null) return false;
    this.filled += count;
    if (count > 0 && this.#refuse(this.message[0]!)) return false;
    if (this.filled === this.message.length) return true;
    return this.#source.read(this.message.subarray(this.filled)).then(this.#take, this.#fail);
  };

  readonly #fail = (error: unknown): boolean => {
    this.error = error;
    return false;
  };
}

/** Writes one message again and again, each with a single call unless the stream is congested. */
export class MessageWriter {
  /** What the sink was rejected with. */
  error: unknown;
  /** The write that is under way; `null` if there is none. */
  writing: Promise<void> | null = null;
  readonly #sink: Sink;
  readonly #message: Uint8Array;

  /** @param message What to write: its bytes are taken at each call of {@linkcode write}. */
  constructor(sink: Sink, message: Uint8Array) {
    this.#sink = sink;
    this.#message = message;
  }

  /**
   * Writes the message. The sink is called at once.
   *
   * @returns When it is taken, or there is an {@linkcode error}: never
   * rejected, so that something else can be waited for.
   */
  write(): Promise<void> {
    return this.writing = this.#write(this.#message);
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
