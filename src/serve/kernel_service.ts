/**
 * What answers beside Deno's own connections: sockets that the kernel stamps,
 * and where that cannot be, datagrams from the event loop.
 *
 * @module
 */

import type { Clock, Timers } from "../clock/clock.ts";
import { DatagramBatch } from "../net/linux/datagrams.ts";
import { Epoll } from "../net/linux/epoll.ts";
import type { BoundSocket, DatagramListener } from "../net/network.ts";
import { libcSockets, socketError } from "../net/linux/socket.ts";
import { LinuxStreams } from "../net/linux/streams.ts";
import { EEXIST } from "../libc/structures.ts";
import { errorText } from "../net/errors.ts";
import { PACKET_SIZE } from "../ntp/packet.ts";
import type { Admission } from "./admission.ts";
import { answerDatagram } from "./answer.ts";
import { Figures } from "./counters.ts";
import { stampTransmit } from "./reply.ts";
import { type StreamOptions, StreamServer } from "./epoll_streams.ts";

/** Answers by itself, and counts. */
export interface Service {
  readonly figures: Figures;
  /** Does it answer at present? */
  readonly running: boolean;
  start(): void;
  /** Once a second: what the server says of its own clock. */
  announce(announced: Uint8Array): void;
  /** Accepts nobody any more and finishes what is in flight. @returns When all is closed. */
  stop(): Promise<void>;
}

/** Milliseconds that it waits for a request before it looks around. */
const PATIENCE = 100;

/** Nanoseconds for which it is ready at once for the next request: about what a client takes until then. */
const ALERT = 60_000n;

/** Nanoseconds after which everything else has its turn. */
const STINT = 4_000_000n;

/** Seconds for which a socket that is broken is left alone. */
const ERROR_PAUSE = 1;

/** All sockets that the kernel stamps, in one loop that waits in the kernel. */
export class KernelService implements Service {
  readonly figures = new Figures();
  /** Does it answer at present? */
  running = false;
  readonly #sockets: readonly BoundSocket[];
  readonly #clock: Clock;
  readonly #timers: Timers;
  readonly #admission: Admission;
  readonly #onFailure: (error: string) => void;
  readonly #epoll: Epoll;
  readonly #streams: StreamServer;
  readonly #batches = new Map<number, DatagramBatch>();
  /** Broken sockets, and what keeps them from being tried again. */
  readonly #resting = new Map<number, () => void>();
  #ended: Promise<void> | null = null;
  #closed = false;

  /**
   * @param onFailure Told why datagrams cannot be answered for a while.
   * @throws {Error} if the sockets cannot be waited for.
   */
  constructor(
    sockets: readonly BoundSocket[],
    options: StreamOptions,
    admission: Admission,
    clock: Clock,
    timers: Timers,
    onFailure: (error: string) => void,
  ) {
    this.#sockets = sockets;
    this.#clock = clock;
    this.#timers = timers;
    this.#admission = admission;
    this.#onFailure = onFailure;
    const libc = libcSockets()!;
    this.#epoll = new Epoll(libc);
    const streams = new LinuxStreams(libc, this.#epoll);
    this.#streams = new StreamServer(streams, admission, clock, this.figures, options);
    try {
      for (const { transport, fd } of sockets) {
        if (transport === "tcp") this.#streams.listen(fd);
        else {
          this.#batches.set(fd, new DatagramBatch(libc, fd, PACKET_SIZE));
          this.#attend(fd);
        }
      }
    } catch (error) {
      this.#epoll.close();
      throw error;
    }
  }

  /** Waits for datagrams. */
  #attend(fd: number): void {
    const error = this.#epoll.add(fd);
    // It may be waited for still.
    if (error !== 0 && error !== EEXIST) throw socketError(libcSockets()!, error);
  }

  start(): void {
    this.#ended = this.#run();
  }

  announce(): void {}

  async stop(): Promise<void> {
    this.figures.stop();
    if (!this.#closed) this.#streams.turn();
    for (const socket of this.#sockets) if (socket.transport === "tcp") socket.close();
    if (this.#ended === null) this.#close();
    await this.#ended;
  }

  async #run(): Promise<void> {
    this.running = true;
    try {
      for (let count = 0; !this.#streams.turn();) {
        if (count === 0) count = await this.#epoll.waitAside(PATIENCE);
        if (count > 0) count = await this.#answerBusily(count);
      }
    } catch (error) {
      this.#onFailure(errorText(error));
    } finally {
      this.running = false;
      this.#close();
    }
  }

  #close(): void {
    this.#closed = true;
    for (const cancel of this.#resting.values()) cancel();
    this.#streams.close();
    for (const socket of this.#sockets) if (socket.transport === "udp") socket.close();
    this.#epoll.close();
  }

  /**
   * Answers for as long as there are requests, and waits a little for more: a client that has its
   * reply may soon ask again. After a while everything else has its turn.
   *
   * @returns How many sockets are ready.
   */
  async #answerBusily(count: number): Promise<number> {
    const clock = this.#clock;
    const start = clock.monotonic();
    for (let asked = start; asked - start < STINT;) {
      this.#answer(count);
      asked = clock.monotonic();
      do count = this.#epoll.wait(0); while (count === 0 && clock.monotonic() - asked < ALERT);
      if (count === 0) return 0;
    }
    // Deno looks for what else has come only when it has something to wait for.
    return await this.#epoll.waitAside(0);
  }

  #answer(count: number): void {
    for (let i = 0; i < count; i++) {
      const fd = this.#epoll.ready(i);
      const batch = this.#batches.get(fd);
      if (batch === undefined) this.#streams.onReady(fd);
      else this.#tryAnswering(fd, batch);
    }
  }

  /** A socket that is broken is left alone for a while: the others are answered. */
  #tryAnswering(fd: number, batch: DatagramBatch): void {
    if (this.#resting.has(fd)) return;
    try {
      this.#answerBatch(batch);
    } catch (error) {
      this.running = false;
      this.#epoll.remove(fd);
      this.#rest(fd, errorText(error));
    }
  }

  #rest(fd: number, why: string): void {
    this.#onFailure(why);
    const cancel = this.#timers.after(ERROR_PAUSE, () => {
      this.#resting.delete(fd);
      try {
        this.#attend(fd);
        this.running = this.#resting.size === 0;
      } catch (error) {
        this.#rest(fd, errorText(error));
      }
    });
    this.#resting.set(fd, cancel);
  }

  /** Answers datagrams, as many as are there up to a batch. */
  #answerBatch(batch: DatagramBatch): void {
    const { figures } = this;
    const count = batch.receive();
    const answered: bigint[] = [];
    const now = this.#clock.realtime();
    for (let i = 0; i < count; i++) {
      let arrived = batch.arrived(i);
      if (arrived === 0n) {
        arrived = now;
        figures.unstamped("udp");
      }
      const refusal = answerDatagram(
        this.#admission,
        batch.sender(i),
        batch.requests[i]!,
        batch.length(i),
        this.#streams.announced,
        arrived,
        () => batch.reply(i),
      );
      if (refusal === null) answered.push(arrived);
      else figures.refuse("udp", refusal);
    }
    if (batch.ready === 0) return;
    const transmit = this.#clock.realtime();
    for (let i = 0; i < batch.ready; i++) stampTransmit(batch.replies[i]!, transmit);
    batch.send();
    for (const arrived of answered) figures.reply("udp", transmit - arrived);
  }
}

/** Datagrams that the program stamps itself. */
export class EventLoopService implements Service {
  readonly figures = new Figures();
  readonly #listener: DatagramListener;
  readonly #clock: Clock;
  readonly #admission: Admission;
  #running: Promise<void> | null = null;
  #announced: Uint8Array = new Uint8Array();

  constructor(listener: DatagramListener, admission: Admission, clock: Clock) {
    this.#listener = listener;
    this.#clock = clock;
    this.#admission = admission;
  }

  start(): void {
    this.#running = this.#run();
  }

  get running(): boolean {
    return this.#running !== null;
  }

  announce(announced: Uint8Array): void {
    this.#announced = announced;
    this.figures.beat();
  }

  async stop(): Promise<void> {
    this.#listener.close();
    await this.#running;
  }

  async #run(): Promise<void> {
    const reply = new Uint8Array(PACKET_SIZE);
    for (;;) {
      const datagram = await this.#listener.receive();
      const received = this.#clock.realtime();
      if (datagram === null) return;
      const { bytes, sender } = datagram;
      let answered = false;
      const refusal = answerDatagram(
        this.#admission,
        sender.hostname,
        bytes.subarray(0, PACKET_SIZE),
        bytes.length,
        this.#announced,
        received,
        () => {
          answered = true;
          return reply;
        },
      );
      if (refusal !== null) this.figures.refuse("udp", refusal);
      if (!answered) continue;
      const bytesToSend = reply.slice(); // It may wait while the next is made.
      const transmitted = this.#clock.realtime();
      stampTransmit(bytesToSend, transmitted);
      this.#listener.send(bytesToSend, sender);
      if (refusal === null) this.figures.reply("udp", transmitted - received);
    }
  }
}
