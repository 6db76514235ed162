/**
 * Serves the sockets with kernel timestamps, connections and datagrams, in one
 * loop that waits in the kernel.
 *
 * @module
 */

import type { Clock, Timers } from "../clock/clock.ts";
import { EEXIST } from "../libc/structures.ts";
import { errorText } from "../net/errors.ts";
import { DatagramBatch } from "../net/linux/datagram_sockets.ts";
import { Epoll } from "../net/linux/epoll.ts";
import { linuxLibc, socketError } from "../net/linux/sockets.ts";
import { LinuxStreams } from "../net/linux/stream_sockets.ts";
import type { BoundSocket } from "../net/network.ts";
import { PACKET_SIZE } from "../ntp/packet.ts";
import { EpollStreams } from "./epoll_streams.ts";
import { ACCEPT_PAUSE_SECONDS, type Service, type Trouble } from "./lifecycle.ts";
import { answerDatagram, stampTransmit } from "./reply.ts";
import type { SessionContext } from "./session.ts";

/** The longest wait for a request before checking whether the server is stopping. */
const MAX_WAIT_MS = 100;

/** Busy polling for the next request: about as long as a client takes to send it. */
const BUSY_POLL_NS = 60_000n;

/** The longest time before the event loop gets to run. */
const MAX_BUSY_NS = 4_000_000n;

/** How long a broken socket is left alone. */
const ERROR_PAUSE_SECONDS = 1;

/** Answers requests on all of these sockets. */
export class KernelService implements Service {
  readonly #sockets: readonly BoundSocket[];
  readonly #sessions: SessionContext;
  readonly #clock: Clock;
  readonly #timers: Timers;
  readonly #epoll: Epoll;
  readonly #streams: EpollStreams;
  readonly #batches = new Map<number, DatagramBatch>();
  /** Broken sockets, each with a function that cancels the retry. */
  readonly #paused = new Map<number, () => void>();
  #trouble: Trouble | null = null;
  #ended: Promise<void> | null = null;
  #closed = false;

  /** @throws {Error} if it cannot wait for the sockets. */
  constructor(
    sockets: readonly BoundSocket[],
    sessions: SessionContext,
    clock: Clock,
    timers: Timers,
  ) {
    this.#sockets = sockets;
    this.#sessions = sessions;
    this.#clock = clock;
    this.#timers = timers;
    const libc = linuxLibc()!;
    this.#epoll = new Epoll(libc);
    const streams = new LinuxStreams(libc, this.#epoll);
    this.#streams = new EpollStreams(streams, sessions, timers);
    try {
      for (const { transport, fd } of sockets) {
        if (transport === "tcp") this.#streams.listen(fd);
        else {
          this.#batches.set(fd, new DatagramBatch(libc, fd, PACKET_SIZE));
          this.#waitFor(fd);
        }
      }
    } catch (error) {
      this.#epoll.close();
      throw error;
    }
  }

  #waitFor(fd: number): void {
    const error = this.#epoll.add(fd);
    // It may still be in the set.
    if (error !== 0 && error !== EEXIST) throw socketError(linuxLibc()!, error);
  }

  start(): void {
    this.#ended = this.#run();
  }

  tick(): readonly Trouble[] {
    const troubles = [this.#streams.tick(), this.#trouble].filter((each) => each !== null);
    if (this.#paused.size === 0 && !this.#closed) this.#trouble = null;
    return troubles;
  }

  async stop(): Promise<void> {
    if (!this.#closed) this.#streams.stop();
    for (const socket of this.#sockets) if (socket.transport === "tcp") socket.close();
    if (this.#ended === null) this.#close();
    await this.#ended;
  }

  async #run(): Promise<void> {
    while (this.#isNeeded) {
      try {
        for (let count = 0; this.#isNeeded;) {
          if (count === 0) count = await this.#epoll.waitAsync(MAX_WAIT_MS);
          if (count > 0) count = await this.#answerBusily(count);
        }
      } catch (error) {
        // Whatever it was: the sockets are there, and so are the clients.
        this.#trouble = { event: "accept-failed", error: errorText(error) };
        await new Promise<void>((resolve) => this.#timers.after(ACCEPT_PAUSE_SECONDS, resolve));
      }
    }
    this.#close();
  }

  get #isNeeded(): boolean {
    return !this.#sessions.stopping || this.#streams.open > 0;
  }

  #close(): void {
    this.#closed = true;
    for (const cancel of this.#paused.values()) cancel();
    this.#streams.close();
    for (const socket of this.#sockets) if (socket.transport === "udp") socket.close();
    this.#epoll.close();
  }

  /**
   * Answers while there are requests, and busily waits for more: a client that has its reply may
   * soon ask again. Returns in time for the event loop to run.
   *
   * @returns The number of sockets that are ready.
   */
  async #answerBusily(count: number): Promise<number> {
    const clock = this.#clock;
    const start = clock.monotonic();
    for (let asked = start; asked - start < MAX_BUSY_NS;) {
      this.#answer(count);
      asked = clock.monotonic();
      do count = this.#epoll.wait(0); while (
        count === 0 && clock.monotonic() - asked < BUSY_POLL_NS
      );
      if (count === 0) return 0;
    }
    // The event loop looks for other events only if there is something to wait for.
    return await this.#epoll.waitAsync(0);
  }

  #answer(count: number): void {
    for (let i = 0; i < count; i++) {
      const fd = this.#epoll.ready(i);
      const batch = this.#batches.get(fd);
      if (batch === undefined) this.#streams.onReady(fd);
      else this.#tryAnswerBatch(fd, batch);
    }
  }

  /** Pauses the socket if it is broken, so that the others are still served. */
  #tryAnswerBatch(fd: number, batch: DatagramBatch): void {
    if (this.#paused.has(fd)) return;
    try {
      this.#answerBatch(batch);
    } catch (error) {
      this.#epoll.remove(fd);
      this.#pause(fd, error);
    }
  }

  #pause(fd: number, error: unknown): void {
    this.#trouble = { event: "datagrams-failed", error: errorText(error) };
    const cancel = this.#timers.after(ERROR_PAUSE_SECONDS, () => {
      this.#paused.delete(fd);
      try {
        this.#waitFor(fd);
      } catch (again) {
        this.#pause(fd, again);
      }
    });
    this.#paused.set(fd, cancel);
  }

  #answerBatch(batch: DatagramBatch): void {
    const { admission, counters, template, now } = this.#sessions;
    const count = batch.receive();
    const answered: bigint[] = [];
    const looked = now();
    for (let i = 0; i < count; i++) {
      let arrived = batch.arrived(i);
      if (arrived === 0n) {
        arrived = looked;
        counters.unstamped("udp");
      }
      const refusal = answerDatagram(
        admission,
        batch.sender(i),
        batch.requests[i]!,
        batch.length(i),
        template,
        arrived,
        () => batch.reply(i),
      );
      if (refusal === null) answered.push(arrived);
      else counters.refuse("udp", refusal);
    }
    if (batch.ready === 0) return;
    const transmitted = now();
    for (let i = 0; i < batch.ready; i++) stampTransmit(batch.replies[i]!, transmitted);
    batch.send();
    for (const arrived of answered) counters.reply("udp", transmitted - arrived);
  }
}
